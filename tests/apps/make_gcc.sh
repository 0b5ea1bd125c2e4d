#!/bin/bash
# make -j2 with gcc over 50 generated files, dumped and restored several times in mid-work; the build tree equals that of an undisturbed build.
# timeout: 200
set -eu
# shellcheck source=tests/lib/bcr.sh
. "$SRC/tests/lib/bcr.sh"

# project DIR: 50 C files of some size, a makefile, a program that uses them all.
project() {
	/usr/bin/python3 -IS - "$1" <<'PYTHON'
import os, sys
os.makedirs(sys.argv[1])
os.chdir(sys.argv[1])
names = [f"part{n}" for n in range(50)]
for n, name in enumerate(names):
    with open(f"{name}.c", "w") as f:
        f.write("#include <stdio.h>\n#include <stdlib.h>\n#include <string.h>\n#include <math.h>\n")
        for k in range(40):
            f.write(f"static double f{k}(double x, int n)\n{{\n\tdouble a[16] = {{ {n}, {k} }};\n"
                    f"\tfor (int i = 1; i < n % 16; i++)\n\t\ta[i] = a[i - 1] * x + i % {k + 2};\n"
                    f"\treturn n > {k} ? a[n % 16] : a[{k % 16}] + x;\n}}\n")
        f.write(f"int {name}(int n)\n{{\n\tdouble s = 0;\n")
        f.write("".join(f"\ts += f{k}(s / 3, n + {k});\n" for k in range(40)))
        f.write("\treturn (int)s & 0xff;\n}\n")
with open("main.c", "w") as f:
    f.write("#include <stdio.h>\n" + "".join(f"int {n}(int);\n" for n in names))
    f.write("int main(void)\n{\n\tint s = 0;\n" + "".join(f"\ts += {n}(s);\n" for n in names))
    f.write('\tprintf("%d\\n", s);\n\treturn 0;\n}\n')
with open("Makefile", "w") as f:
    objects = " ".join(f"{n}.o" for n in names + ["main"])
    f.write(f"program: {objects}\n\tgcc -o $@ {objects} -lm\n%.o: %.c\n\tgcc -O2 -c -o $@ $<\n")
PYTHON
}

objects() {
	find work -name '*.o' | wc -l
}

project reference
project work
make -s -j2 -C reference >reference.log 2>&1 || { show_log reference.log; fail "the undisturbed build"; }

spawn "$PWD/work" make -j2
rounds=0 refusals=0
for wanted in 2 8 15 22 30 40; do
	await entries work .o $wanted || { show_log work/log; fail "the build does not get to $wanted objects"; }
	# A process may be in the middle of vfork or exec: then bcr refuses, and the next attempt meets another moment.
	rc=1
	for _ in $(seq 20); do
		kill -0 "$pid" 2>/dev/null || break 2
		rc=0
		mkdir -p images
		"$BCR" dump -t "$pid" -D images -v4 -o dump.log || rc=$?
		[ $rc != 0 ] || break
		refusals=$((refusals + 1))
		kill -0 "$pid" 2>/dev/null || break
	done 2>refusals.log
	[ $rc = 0 ] || { show_log images/dump.log; fail "20 attempts to dump were refused"; }
	gone "$pid"
	count=$(objects)
	restore "$PWD/images"
	rounds=$((rounds + 1))
	say "dumped and restored with $count of 51 objects there"
done
[ $rounds -ge 2 ] || fail "it was done before it could be dumped twice"
gone "$pid"
say "$rounds round trips, $refusals attempts refused"
[ -x work/program ] || { show_log work/log; fail "the build did not succeed"; }
grep -i error work/log && fail "the build met errors"
rm work/log
diff -r reference work || fail "the build tree differs from an undisturbed one"
[ "$(work/program)" = "$(reference/program)" ] || fail "the program computes something else"
