#!/bin/bash
# `make install` installs what it says, where it is told; the man page tells of every option that --help tells of.
set -eu
# shellcheck source=tests/lib/bcr.sh
. "$SRC/tests/lib/bcr.sh"
# What is installed is the build that is tested; `make` finds it up to date. tests/run says in SAN which sort it is.
make -C "$SRC" O="$BUILD" SAN="${SAN:-0}" install PREFIX=/opt/x DESTDIR="$PWD/dest" >make.out 2>&1 ||
	{ show_log make.out; fail "make install"; }
cmp "$BCR" dest/opt/x/sbin/bcr || fail "another binary was installed"
man=dest/opt/x/share/man/man8/bcr.8
[ -s $man ] || fail "no man page"
[ "$(find dest -type f | wc -l)" = 3 ] || { find dest -type f; fail "expected binary, man page and completion"; }
dest/opt/x/sbin/bcr --version >version
head -n 1 version | grep -qE '^Version: [0-9]+\.[0-9]+' || { cat version; fail "--version does not begin with 'Version: X.Y'"; }

say "the man page"
man --warnings -l $man >page 2>warnings || { cat warnings; fail "man does not show it"; }
[ ! -s warnings ] || { cat warnings; fail "the man page has mistakes"; }
# Without hyphenation and font changes, to search in.
MANWIDTH=1000 man -l $man | col -b >page
for verb in dump restore show check; do
	"$BCR" $verb --help | grep -oE -- '(^|[ ,])--[a-z][-a-z]*' | tr -d ' ,' | sort -u >options
	[ -s options ] || fail "bcr $verb --help names no option"
	while read -r option; do
		[ "$option" != --no- ] || continue
		grep -qE -- "$option([^-a-z]|$)" page || fail "the man page does not mention $option of bcr $verb"
	done <options
done
"$BCR" --help >help
for verb in dump restore show check exec; do
	grep -qw $verb help || fail "bcr --help does not mention $verb"
	grep -qw $verb page || fail "the man page does not mention $verb"
done

say "completion"
# shellcheck source=/dev/null
(
	. /usr/share/bash-completion/bash_completion 2>/dev/null || true
	set +eu
	. dest/opt/x/share/bash-completion/completions/bcr
	complete -p bcr
) >completion || fail "the completion does not load"
