#!/bin/bash
# Parents, groups and sessions, zombies with their exit codes, a stopped process.
set -eu
# shellcheck source=tests/lib/bcr.sh
. "$SRC/tests/lib/bcr.sh"
both_ways "$lib/sessions"
