#!/bin/bash
# Pages that parent, child and grandchild share copy-on-write are still the same pages of memory after a restore.
set -eu
# shellcheck source=tests/lib/bcr.sh
. "$SRC/tests/lib/bcr.sh"

# Prints, for each page, how the three share it: "aaa" all one page, "aab" the grandchild has its own, ...
sharing() {
	/usr/bin/python3 -IS - "$1" <<-'PYTHON'
	import sys
	start, pages, *pids = map(int, open(sys.argv[1]).read().split())
	def frames(pid):
	    with open(f"/proc/{pid}/pagemap", "rb") as f:
	        f.seek(start // 4096 * 8)
	        data = f.read(pages * 8)
	    for i in range(pages):
	        entry = int.from_bytes(data[i * 8:i * 8 + 8], "little")
	        yield entry & (1 << 55) - 1 if entry >> 63 else 0
	for n, trio in enumerate(zip(*map(frames, pids))):
	    letters = {}
	    if 0 in trio:
	        print(n, "not present", trio)
	    else:
	        print(n, "".join(letters.setdefault(f, "abc"[len(letters)]) for f in trio))
	PYTHON
}

target "$PWD/restored" "$lib/cow"
sharing restored/area >before
grep -q aaa before || skip "this kernel does not show which pages are shared"
shared=$(grep -c aaa before)
[ "$shared" = 40 ] || { cat before; fail "the target shares $shared pages, not 40"; }
round_trip "$PWD/restored" "$PWD/images"
sharing restored/area >after
diff before after || fail "pages are shared in another way than before"

finish "$PWD/restored" "$pid"

target "$PWD/running" "$lib/cow"
sharing running/area >before
dump "$PWD/images-running" "$pid" -R
sharing running/area >after
diff before after || fail "a dump made the running target unshare pages"
finish "$PWD/running" "$pid"
