#!/bin/bash
# Runs a command in a bare Debian 12 tree with a clean checkout, so that no missing package hides:
#
#   tests/chroot.sh [-d DIR] [-k] COMMAND...        tests/chroot.sh make demo
#
#   -d DIR   where the tree made by debootstrap is kept for the next time (default /var/tmp/bcr-debian12)
#   -k       keep the tree the command ran in (DIR/run)
#
# The checkout is what HEAD holds, in /root/bcr of the tree. MIRROR names another Debian mirror.
set -eu
dir=/var/tmp/bcr-debian12 keep=
while getopts d:k option; do
	case $option in
	d) dir=$OPTARG ;;
	k) keep=1 ;;
	*) exit 1 ;;
	esac
done
shift $((OPTIND - 1))
[ $# -gt 0 ] || { sed -n '2,/^set/s/^# \{0,1\}//p' "$0"; exit 1; }
[ "$(id -u)" = 0 ] || { echo "$0: needs root" >&2; exit 1; }
# All mounts are made in a mount namespace of our own and end with it.
if [ -z "${BCR_CHROOT_INSIDE:-}" ]; then
	set -- -d "$dir" ${keep:+-k} "$@"
	exec env BCR_CHROOT_INSIDE=1 unshare --mount --propagation private "$0" "$@"
fi
unset BCR_CHROOT_INSIDE

src=$(cd "$(dirname "$0")/.." && pwd)
mkdir -p "$dir"
base=$dir/base tree=$dir/run
if [ ! -e "$base.complete" ]; then
	command -v debootstrap >/dev/null || { echo "$0: install debootstrap" >&2; exit 1; }
	rm -rf "$base"
	# shellcheck disable=SC2086 # none, then it is the one debootstrap knows
	debootstrap --variant=minbase bookworm "$base" ${MIRROR:-}
	rm -f "$base"/var/cache/apt/archives/*.deb
	touch "$base.complete"
fi
rm -rf --one-file-system "$tree"
cp -a --reflink=auto "$base" "$tree"
mkdir "$tree/root/bcr"
git -C "$src" archive HEAD | tar -x -C "$tree/root/bcr"
cp -L /etc/resolv.conf /etc/hosts "$tree/etc/"

# The root of a process must be the root of a mount: bcr, like everybody, asks for paths inside it.
mount --bind "$tree" "$tree"
mount -t proc proc "$tree/proc"
mount --rbind /sys "$tree/sys"
mount --rbind /dev "$tree/dev"
status=0
# The one thing that has to be there before `make demo` can install the rest.
chroot "$tree" sh -c 'apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends make' \
	>/dev/null
chroot "$tree" /usr/bin/env -i HOME=/root PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
	TERM="${TERM:-dumb}" /bin/sh -c 'cd /root/bcr && exec "$@"' sh "$@" || status=$?
umount -R "$tree/dev" "$tree/sys" "$tree/proc" "$tree" 2>/dev/null || umount -R -l "$tree"
[ -n "$keep" ] || rm -rf --one-file-system "$tree"
exit $status
