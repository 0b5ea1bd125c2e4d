#!/bin/bash
# Signal actions, masks, queued signals and timers of a program that is dumped inside a handler.
set -eu
# shellcheck source=tests/lib/bcr.sh
. "$SRC/tests/lib/bcr.sh"
both_ways "$lib/signals"
