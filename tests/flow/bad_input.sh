#!/bin/bash
# Bad input: one clear sentence, exit status 1, and nothing touched.
# timeout: 200
set -eu
# shellcheck source=tests/lib/bcr.sh
. "$SRC/tests/lib/bcr.sh"
dir=$PWD/cow

# refused WORDS COMMAND...: exit 1; the words (an extended pattern) are in an error line; no more than five lines.
refused() {
	local words=$1 rc=0
	shift
	"$@" >out 2>&1 || rc=$?
	[ $rc = 1 ] || { show_log out; fail "'$*': exit status $rc, expected 1"; }
	grep -qiE -- "$words" out || { show_log out; fail "'$*' does not say '$words'"; }
	[ "$(wc -l <out)" -le 5 ] || { cat out; fail "'$*' says too much"; }
	say "$(grep -iE -m 1 -- "$words" out)"
}

fine() {
	kill -0 "$pid" || fail "$1: the target is gone"
	not_stopped "$pid"
}

mkdir images
unused=$(($(cat /proc/sys/kernel/pid_max) - 1))
while kill -0 $unused 2>/dev/null; do unused=$((unused - 1)); done

refused "no (such )?process|does not exist" "$BCR" dump -t $unused -D images
refused "kernel thread" "$BCR" dump -t 2 -D images
refused "number" "$BCR" dump -t abc -D images
refused "tree|number" "$BCR" dump -t 0 -D images
refused "tree|number" "$BCR" dump -t -5 -D images
refused "tree" "$BCR" dump -D images
refused "ancestor|itself|itself runs|own" "$BCR" dump -t $$ -D images
# shellcheck disable=SC2016 # for the inner shell
refused "itself|own|ancestor" /bin/sh -c 'exec "$0" dump -t $$ -D images' "$BCR"
refused "unknown" "$BCR" dump -t $$ -D images --no-such-option
refused "unknown|usage|no such" "$BCR" no-such-verb
no_set images

target "$dir" "$lib/cow"
refused "option" "$BCR" dump -t "$pid" -D images --no-such-option
refused "not supported yet" "$BCR" dump -t "$pid" -D images --lazy-pages
refused "no such file|does not exist" "$BCR" dump -t "$pid" -D "$PWD/nowhere"
no_set images
fine "unknown options"

say "another user's process, without privilege"
mkdir -m 0777 theirs
nobody="setpriv --reuid=65534 --regid=65534 --clear-groups --inh-caps=-all"
# shellcheck disable=SC2086 # words are meant
if $nobody test -x "$BCR" && $nobody "$BCR" --version >out 2>&1; then
	# shellcheck disable=SC2086
	refused "permi|privilege|root|CAP_|not allowed" $nobody "$BCR" dump -t "$pid" -D theirs
else
	say "the binary is in a directory that nobody else may enter: copied"
	cp "$BCR" theirs/bcr.copy
	# shellcheck disable=SC2086
	refused "permi|privilege|root|CAP_|not allowed" $nobody theirs/bcr.copy dump -t "$pid" -D theirs
	rm theirs/bcr.copy
fi
no_set theirs
fine "no privilege"

say "directories that cannot be written"
refused "not a directory" "$BCR" dump -t "$pid" -D "$BCR"
mkdir ro
mount -t tmpfs -o size=1m none ro
mount -o remount,ro ro
refused "read-only" "$BCR" dump -t "$pid" -D ro
umount ro
refused "." "$BCR" dump -t "$pid" -D /proc/self
fine "unwritable"

say "a full disk"
mkdir full
for size in 4k 16k 64k 128k; do
	mount -t tmpfs -o size=$size none full
	refused "no space left" "$BCR" dump -t "$pid" -D full
	no_set full
	fine "a full disk of $size"
	umount full
done
say "a full disk, with an older set on it that stays valid"
mount -t tmpfs -o size=100m none full
dump "$PWD/full" "$pid" -R
(cd full && sha256sum -- *.img bcr-*.bcr) >sums
dd if=/dev/zero of=full/filler.log bs=4k 2>/dev/null || true
refused "no space left" "$BCR" dump -t "$pid" -D full
(cd full && sha256sum --quiet -c ../sums) || fail "the older set was touched"
fine "a full disk"
umount full

say "an older set is replaced as a whole"
tree "$pid" >tree.before
dump "$PWD/images" "$pid" -R
echo mine >images/descriptors.json
echo stale >images/core-99999.img
dump "$PWD/images" "$pid"
gone "$pid"
[ "$(cat images/descriptors.json)" = mine ] || fail "a file of somebody else was touched"
[ ! -e images/core-99999.img ] || fail "the older set's core-99999.img is still among the images"

good=$PWD/images
old=$pid

# broken NAME WORDS: restoring the set NAME is refused; there is no process then.
broken() {
	refused "$2" "$BCR" restore -d -D "$1"
	if kill -0 "$old" 2>/dev/null; then fail "set $1: a process is there"; fi
}

set_copy() {
	rm -rf broken
	cp -a "$good" broken
}

say "images that are missing"
# The format lets a set do without these; nothing of this target is in them.
optional() {
	case $1 in
	seccomp.img | timens-0.img | cgroup.img | tty-info.img | pipes-data.img) return 0 ;;
	*) return 1 ;;
	esac
}
for file in "$good"/*.img "$good"/bcr-*.bcr; do
	file=${file##*/}
	! optional "$file" || continue
	[ "$file" != bcr-manifest.bcr ] || continue # what CRIU writes has none, and is read
	set_copy
	rm "broken/$file"
	broken broken "${file/./\\.}"
done
refused "inventory" "$BCR" restore -d -D theirs
refused "inventory" "$BCR" show -D theirs

say "images that are truncated"
for file in "$good"/*.img "$good"/bcr-*.bcr; do
	file=${file##*/}
	! optional "$file" || continue
	size=$(stat -c %s "$good/$file")
	for keep in 0 3 7 $((size / 2)) $((size - 1)); do
		[ "$keep" -lt "$size" ] || continue
		set_copy
		truncate -s "$keep" "broken/$file"
		broken broken "${file/./\\.}"
	done
done

say "images of which a bit is flipped: refused, or restored as they were; never anything in between"
cat >flip.py <<'PYTHON'
import random, sys
path, seed = sys.argv[1], int(sys.argv[2])
random.seed(seed)
with open(path, "r+b") as f:
    data = bytearray(f.read())
    bit = random.randrange(len(data) * 8)
    data[bit // 8] ^= 1 << bit % 8
    f.seek(0)
    f.write(data)
PYTHON
refusals=0
for i in 1 2 3 4 5 6; do
	for file in "$good"/*.img "$good"/bcr-*.bcr; do
		file=${file##*/}
		case $file in pages-*) continue ;; esac # contents: only a checksum could tell
		set_copy
		/usr/bin/python3 -IS flip.py "broken/$file" $i
		rc=0
		timeout 20 "$BCR" show -D broken >out 2>&1 || rc=$?
		[ $rc = 0 ] || [ $rc = 1 ] || { show_log out; fail "show with a flipped bit in $file ($i): exit status $rc"; }
		[ $rc = 0 ] || refusals=$((refusals + 1))
		case $file in
		# What says who a process is cannot be tried out here: a flipped bit makes it another valid one.
		inventory.img | pagemap-* | fdinfo-* | files.img | ids-* | fs-*) ;;
		*) continue ;;
		esac
		rc=0
		timeout 20 "$BCR" restore -d -D broken --pidfile "$PWD/pidfile" >out 2>&1 || rc=$?
		case $rc in
		0)
			# shellcheck disable=SC2046 # words are meant
			kill_tree $(cat tree.before)
			;;
		1) if kill -0 "$old" 2>/dev/null; then fail "a flipped bit in $file ($i): refused, but a process is there"; fi ;;
		*) show_log out; fail "restore with a flipped bit in $file ($i): exit status $rc" ;;
		esac
	done
done
say "$refusals of the flipped bits were noticed when reading"
[ "$refusals" -gt 0 ] || fail "no flipped bit was noticed"

say "pid already in use"
restore "$good"
first=$pid
refused "$first.*in use|in use.*$first|already" "$BCR" restore -d -D "$good"
fine "pid in use"
finish "$dir" "$pid"

say "executable changed since"
cp "$lib/cow" program
target "$PWD/changed" "$PWD/program"
dump "$PWD/changed-images" "$pid"
gone "$pid"
echo more >>program
refused "program.*(size|chang)" "$BCR" restore -d -D changed-images
rm program
refused "program" "$BCR" restore -d -D changed-images
if kill -0 "$pid" 2>/dev/null; then fail "a process is there"; fi
cp "$lib/cow" program
restore "$PWD/changed-images"
finish "$PWD/changed" "$pid"
