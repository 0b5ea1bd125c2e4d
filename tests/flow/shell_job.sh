#!/bin/bash
# A job of an interactive shell: dumped with -j from its terminal, restored with -j on another one.
set -eu
# shellcheck source=tests/lib/bcr.sh
. "$SRC/tests/lib/bcr.sh"

cat >job.py <<'PYTHON'
"""Runs a command as the session leader of a new pty; copies its output to a file; types what is put into a fifo."""
import os, pty, select, sys
fifo, output, command = sys.argv[1], sys.argv[2], sys.argv[3:]
pid, master = pty.fork()
if pid == 0:
    os.execvp(command[0], command)
keys = os.open(fifo, os.O_RDWR)
with open(output, "wb", buffering=0) as out:
    while True:
        ready, _, _ = select.select([master, keys], [], [])
        if keys in ready:
            os.write(master, os.read(keys, 1000))
        if master in ready:
            try:
                data = os.read(master, 4096)
            except OSError:  # the other side has ended
                data = b""
            if not data:
                break
            out.write(data)
_, status = os.waitpid(pid, 0)
sys.exit(os.waitstatus_to_exitcode(status))
PYTHON

# A program that reads lines of its terminal and answers them; its terminal has settings of its own.
cat >answer.sh <<'PROGRAM'
stty -echo intr ^G
echo $$ >answer.pid.tmp
mv answer.pid.tmp answer.pid
count=0
while read -r line; do
	count=$((count + 1))
	echo "answer $count: $line, $(stty -a | grep -o 'intr = ..' | tr -d ' ')"
	[ "$line" != end ] || exit 7
done
PROGRAM

mkfifo keys1 keys2
say "a shell with a job, on a terminal"
# The shell starts the program in its foreground, as a group of its own.
spawn_child "$PWD" /usr/bin/python3 -IS job.py keys1 screen1 /bin/bash --norc -m -c '/bin/bash answer.sh; echo "status $?"; read -r x'
shell=$pid
await file answer.pid || { show_log log; fail "the job did not start"; }
job=$(cat answer.pid)
echo one >keys1
await text screen1 "answer 1: one, intr=^G" || { cat screen1; fail "no answer"; }

say "refused without --shell-job, which is named"
dump_refused "$PWD/refused" "$job" "shell-job"
kill -0 "$job" || fail "the job is gone"
echo two >keys1
await text screen1 "answer 2: two" || { cat screen1; fail "no answer after the refusal"; }

say "left running"
dump "$PWD/running" "$job" -j -R
echo three >keys1
await text screen1 "answer 3: three" || { cat screen1; fail "no answer after a dump that left it running"; }

say "dumped"
dump "$PWD/images" "$job" -j
gone "$job"
await text screen1 "status 137" || { cat screen1; fail "the shell does not say that its job was killed"; }

say "restored on another terminal"
spawn_child "$PWD" /usr/bin/python3 -IS job.py keys2 screen2 "$BCR" restore -j -D images -o restore.log -v4
restored=$pid
echo four >keys2
await text screen2 "answer 4: four, intr=^G" || { show_log screen2; show_log images/restore.log; fail "no answer from the restored job"; }
kill -0 "$job" || fail "it has another pid"
echo end >keys2
await text screen2 "answer 5: end" || { show_log screen2; fail "no answer from the restored job"; }
rc=0
wait "$restored" || rc=$?
[ $rc = 7 ] || fail "restore ends with status $rc, not with that of the job, 7"
gone "$job"
echo >keys1
wait "$shell" || true
