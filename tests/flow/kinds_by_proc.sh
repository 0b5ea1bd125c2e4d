#!/bin/bash
# Trees that are peculiar in what processes share, whose main threads have exited, that go on after a stop, or whose directories have
# been removed are dumped by --observe=proc, restored and left running: what BPF would tell of them comes from kcmp(2), ptrace and the
# parasite then.
set -eu
# shellcheck source=tests/lib/bcr.sh
. "$SRC/tests/lib/bcr.sh"

# The other way is another test's: tests/kinds.
for name in tree_shared_memory tree_shared_memory_states tree_shared_tables leader_exited tree_continued directory_deleted; do
	target "$PWD/$name/target" "$BUILD/tests/kinds/$name"
	round_trip "$PWD/$name/target" "$PWD/$name.images" --observe=proc
	finish "$PWD/$name/target" "$pid"
	target "$PWD/$name.running/target" "$BUILD/tests/kinds/$name"
	dump "$PWD/$name.running.images" "$pid" --leave-running --observe=proc
	finish "$PWD/$name.running/target" "$pid"
done
