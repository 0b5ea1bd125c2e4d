#!/bin/bash
# Threads that hold robust mutexes, and end holding them, are dumped at random moments.
# timeout: 300
set -eu
# shellcheck source=tests/lib/bcr.sh
. "$SRC/tests/lib/bcr.sh"
# shellcheck source=tests/lib/stress.sh
. "$SRC/tests/lib/stress.sh"
stress "$lib/stress_robust"
