#!/bin/bash
# Credentials, capabilities, limits and the other attributes of a process.
set -eu
# shellcheck source=tests/lib/bcr.sh
. "$SRC/tests/lib/bcr.sh"
both_ways "$lib/creds"
