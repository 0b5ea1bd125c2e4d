#!/bin/bash
# Registers of 50 threads, half of them spinning in user mode, and all that a thread has of its own.
set -eu
# shellcheck source=tests/lib/bcr.sh
. "$SRC/tests/lib/bcr.sh"
both_ways "$lib/threads"
