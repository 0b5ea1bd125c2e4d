#!/bin/bash
# A service as setpriv(1) starts it: another user, one capability, no way to more; python3 with threads. Dumped and restored by
# root, /proc says the same of every thread, what it writes is its user's still, and nobody but root reads the images.
set -eu
# shellcheck source=tests/lib/bcr.sh
. "$SRC/tests/lib/bcr.sh"
command -v setpriv >/dev/null && command -v python3 >/dev/null || skip "no setpriv or python3"

cat >service.py <<'PY'
import os, sys, threading, time

def work(n):
    i = 0
    while True:
        i += 1
        with open(f"out.{n}.tmp", "w") as f:
            f.write(f"{i}\n")
        os.rename(f"out.{n}.tmp", f"out.{n}")
        time.sleep(0.01)

for n in range(3):
    threading.Thread(target=work, args=(n,), daemon=True).start()
time.sleep(1000)
PY
mkdir service
chmod 777 service
chmod 755 .
spawn "$PWD/service" setpriv --reuid=65534 --regid=65534 --groups=7,65534 --inh-caps=+net_bind_service \
	--ambient-caps=+net_bind_service --bounding-set=-all,+net_bind_service,+kill --no-new-privs --pdeathsig=clear \
	/usr/bin/env python3 "$PWD/service.py"
await number service/out.2 20 || { show_log service/log; fail "the service does not work"; }

# look: who each thread is.
look() {
	grep -hE '^(Uid|Gid|Groups|Cap|NoNewPrivs|Umask)' /proc/"$pid"/task/*/status
	stat -c %U "/proc/$pid/environ"
}
look >before
grep -q '^CapAmb:.*400$' before || { cat before; fail "setpriv did not do what was asked"; }
old=$pid
dump "$PWD/images" "$pid"
[ -z "$(find images -type f \( -perm /077 -o ! -user root \))" ] || { ls -l images; fail "others read the images"; }
restore "$PWD/images"
[ "$pid" = "$old" ] || fail "restored as $pid, was $old"
at=$(cat service/out.0)
await number service/out.0 $((at + 20)) || fail "it does not go on"
look >after
cmp before after || { diff before after; fail "it is somebody else now"; }
[ "$(stat -c %u service/out.0)" = 65534 ] || fail "what it writes is not its own"
kill_tree "$pid"
