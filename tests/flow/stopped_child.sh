#!/bin/bash
# A child that SIGSTOP has stopped, which its parent may have been told, or not: it is stopped when it is restored, and goes on
# at SIGCONT; whatever way it was observed.
set -eu
# shellcheck source=tests/lib/bcr.sh
. "$SRC/tests/lib/bcr.sh"

# The child writes when it goes on.
cat >told.py <<'PROGRAM'
import os, signal, sys
child = os.fork()
if child == 0:
    os.kill(os.getpid(), signal.SIGSTOP)
    print("goes on", flush=True)
    os._exit(7)
if sys.argv[1] == "told":
    assert os.WIFSTOPPED(os.waitpid(child, os.WUNTRACED)[1])
print(os.WEXITSTATUS(os.waitpid(child, 0)[1]), flush=True)
PROGRAM

for observe in bpf proc; do
	for told in told untold; do
		dir=$PWD/$observe-$told
		say "$observe, $told"
		spawn "$dir" /usr/bin/python3 -IS "$PWD/told.py" $told
		await state "$pid" S || fail "the parent does not wait"
		until child=$(cat "/proc/$pid/task/$pid/children") && child=${child% } && [ -n "$child" ]; do :; done
		await state "$child" T || fail "the child is not stopped"
		round_trip "$dir" "$dir/images" --observe=$observe
		await state "$child" T || fail "the restored child is not stopped"
		[ ! -s "$dir/log" ] || { show_log "$dir/log"; fail "something has gone on"; }
		kill -CONT "$child"
		gone "$pid"
		[ "$(cat "$dir/log")" = "goes on"$'\n'7 ] || { show_log "$dir/log"; fail "it does not go on as it should"; }
	done
done
