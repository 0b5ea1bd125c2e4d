#!/bin/bash
# tar | gzip of a large tree, dumped and restored several times in mid-work; the archive is intact.
set -eu
# shellcheck source=tests/lib/bcr.sh
. "$SRC/tests/lib/bcr.sh"

say "a tree of 3000 files, 150 MiB, half of it hard to compress"
/usr/bin/python3 -IS - <<'PYTHON'
import os, random
random.seed(1)
for d in range(30):
    os.makedirs(f"tree/d{d}/sub")
    for f in range(100):
        with open(f"tree/d{d}/{'sub/' if f % 2 else ''}f{f}", "wb") as out:
            out.write(random.randbytes(25000) + b"the same line again\n" * 1280)
PYTHON

mkdir work
# shellcheck disable=SC2016 # for the inner shell
spawn "$PWD/work" /bin/bash -c 'set -o pipefail; tar -C .. -cf - tree | gzip -6 >archive.tar.gz; echo "status $?"'
# The archive holds about 75 MiB at the end: the last dump begins while there are seconds to go.
rounds=0
for mib in 3 10 20 30; do
	await size work/archive.tar.gz $((mib << 20)) || { show_log work/log; fail "the archive does not grow to $mib MiB"; }
	mkdir -p images
	"$BCR" dump -t "$pid" -D images -v4 -o dump.log || {
		# It was done before.
		kill -0 "$pid" 2>/dev/null || break
		show_log images/dump.log
		fail "dump of $pid"
	}
	gone "$pid"
	restore "$PWD/images"
	rounds=$((rounds + 1))
done
[ $rounds -ge 2 ] || fail "it was done before it could be dumped twice"
gone "$pid"
[ "$(tail -n 1 work/log)" = "status 0" ] || { show_log work/log; fail "tar | gzip failed"; }
say "dumped and restored $rounds times; comparing"
gzip -t work/archive.tar.gz || fail "the archive is damaged"
mkdir out
tar -C out -xzf work/archive.tar.gz
diff -r tree out/tree || fail "the archive holds something else than the tree"
