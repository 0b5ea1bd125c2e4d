#!/bin/bash
# Every test that docs/coverage.md names exists, and every row of state names one.
set -eu
: "${SRC:?}"
failed=0
# shellcheck disable=SC2016 # backquotes are the document's
for name in $(grep -oE '`(unit|kinds|flow|apps|fuzz)/[a-z0-9_]+`' "$SRC/docs/coverage.md" | tr -d '`' | sort -u); do
	[ -e "$SRC/tests/$name.c" ] || [ -e "$SRC/tests/$name.sh" ] || {
		echo "docs/coverage.md names tests/$name, which does not exist"
		failed=1
	}
done
# Rows of tables, but for heads and rulers.
while read -r row; do
	[[ $row =~ \`(unit|kinds|flow|apps|fuzz)/[a-z0-9_]+\` ]] || {
		echo "docs/coverage.md: no test in the row: $row"
		failed=1
	}
done < <(grep '^|' "$SRC/docs/coverage.md" | grep -vE '^\|(-|[^|]*---)|^\| (state|program) \|')
exit $failed
