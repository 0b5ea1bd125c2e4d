#!/bin/bash
# Every image file decodes with Debian's crit, an independent reader, for sets of varied targets; and the statistics are true.
set -eu
# shellcheck source=tests/lib/bcr.sh
. "$SRC/tests/lib/bcr.sh"
# The one of the package: it wants the Python that it was packaged for.
crit=(/usr/bin/python3 /usr/bin/crit)
"${crit[@]}" show --help >/dev/null 2>&1 || skip "no crit: install the package criu"

# All files of a set by the library that crit is made of, in one process; and one of each sort by crit itself.
decode() {
	local file sort last=
	/usr/bin/python3 -I - "$1" >decoded 2>&1 <<-'PYTHON' || { show_log decoded; fail "crit's library does not decode $1"; }
	import glob, json, os, sys
	import pycriu
	for path in sorted(glob.glob(sys.argv[1] + "/*.img") + glob.glob(sys.argv[1] + "/stats-*")):
	    # Raw pages. What CRIU's format has no place for is in files of another name (*.bcr), which its readers do not look at.
	    if os.path.basename(path).startswith("pages-") or path.endswith(".bcr"):
	        continue
	    print(path)
	    with open(path, "rb") as f:
	        json.dumps(pycriu.images.load(f, True, no_payload=False)["entries"])
	PYTHON
	decoded=$((decoded + $(wc -l <decoded)))
	while read -r file; do
		sort=${file##*/}
		sort=${sort%%-[0-9]*}
		[ "$sort" != "$last" ] || continue
		last=$sort
		"${crit[@]}" show "$file" >shown 2>&1 || { show_log shown; fail "crit does not decode $file"; }
		grep -q '"entries"' shown || fail "crit shows no entries for $file"
	done < <(sort decoded)
	local whats="ps fds mems"
	# crit wants descriptors and memory of every process, and zombies have none, in sets of CRIU neither.
	[ "${1##*/}" != images-sessions ] || whats="ps"
	for what in $whats; do
		"${crit[@]}" x "$1" "$what" >"$what.out" 2>&1 || { show_log "$what.out"; fail "crit x $1 $what"; }
		[ -s "$what.out" ] || fail "crit x $1 $what shows nothing"
	done
	grep -q "^ *$2" ps.out || { cat ps.out; fail "crit x $1 ps does not show pid $2"; }
}

# pages_written + shpages_written is what is in the files of pages.
check_stats() {
	"${crit[@]}" show "$1/stats-dump" >stats
	/usr/bin/python3 -IS - "$1" <<-'PYTHON' || fail "stats-dump of $1 is not true"
	import glob, json, os, sys
	dump = json.load(open("stats"))["entries"][0]["dump"]
	stored = sum(os.path.getsize(f) for f in glob.glob(sys.argv[1] + "/pages-*.img"))
	said = int(dump["pages_written"]) + int(dump.get("shpages_written", 0))
	print("stored", stored // 4096, "pages; stats-dump:", dump)
	ok = stored % 4096 == 0 and said == stored // 4096 and said > 0
	ok = ok and int(dump["frozen_time"]) > 0 and int(dump["freezing_time"]) > 0
	ok = ok and int(dump["pages_scanned"]) >= int(dump["pages_written"])
	sys.exit(not ok)
	PYTHON
}

decoded=0
for name in rich memory signals sessions creds thread_registers cow interrupted crowd memfd_contents sysv_shm unlinked_file; do
	say "$name"
	program=$lib/$name
	[ -x "$program" ] || program=$BUILD/tests/kinds/$name
	target "$PWD/$name" "$program"
	dump "$PWD/images-$name" "$pid"
	gone "$pid"
	decode "$PWD/images-$name" "$pid"
	check_stats "$PWD/images-$name"
	restore "$PWD/images-$name"
	"${crit[@]}" show "images-$name/stats-restore" >stats || fail "crit does not decode stats-restore"
	# The data of the restored program is checked by other tests.
	finish "$PWD/$name" "$pid"
done
say "$decoded files"
