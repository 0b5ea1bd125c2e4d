# bcr: checkpoint and restore of running process trees.
#
#   make                 build build/bcr              make SAN=1 ...   the same with address and UB sanitizers
#   sudo make demo       install what is missing, build, show the main job on a real program
#   sudo make test       everything; T=name runs one test; `N passed, N failed, N skipped` comes last
#   make check           unit tests only, without root
#   make bench           figures: freeze, dump time, restore time, image size
#   make install PREFIX=/usr/local DESTDIR=
#
# Order: BPF objects → skeletons → blobs → messages → bcr. New files need no edit here.

VERSION := 0.1
PREFIX ?= /usr/local
DESTDIR ?=
SAN ?= 0
V ?= 0
O ?= $(if $(filter 1,$(SAN)),build-san,build)

CC ?= gcc
CLANG ?= clang
LLVM_STRIP ?= llvm-strip
BPFTOOL ?= $(firstword $(wildcard /usr/sbin/bpftool /usr/local/sbin/bpftool) bpftool)
Q := $(if $(filter 1,$(V)),,@)
say = $(if $(filter 1,$(V)),,@printf '  %-8s %s\n' $(1) $(2))
# The flag, where the compiler knows it.
cc_option = $(shell $(CC) -Werror $(1) -E -x c /dev/null >/dev/null 2>&1 && echo $(1))

PKGS := libbpf libprotobuf-c libnl-3.0 libcap jansson libelf
LIBS = $(shell pkg-config --libs $(PKGS)) -lz -lpthread
WARN := -Wall -Wextra -Wmissing-prototypes -Wstrict-prototypes -Wvla -Wno-unused-parameter
CPPFLAGS += -D_GNU_SOURCE -DBCR_VERSION='"$(VERSION)"' -I. -Iuser -I$(O) $(shell pkg-config --cflags $(PKGS) 2>/dev/null)
CFLAGS ?= -O2 -g
CFLAGS += -std=gnu11 $(WARN) -fno-strict-aliasing
ifeq ($(SAN),1)
CFLAGS += -fsanitize=address,undefined -fno-omit-frame-pointer
# With gcc's shared libraries only one of the two heeds log_path, and tests would swallow what the other one reports.
LDFLAGS += -fsanitize=address,undefined $(call cc_option,-static-libasan) $(call cc_option,-static-libubsan)
endif

BPF_CFLAGS := -target bpf -D__TARGET_ARCH_x86 -O2 -g -Wall -I. -Ivmlinux -I$(O)
# The blob is run without a libc, a stack protector or a red zone to rely on; -fno-builtin would keep memcpy calls.
PIE_CFLAGS := -std=gnu11 $(WARN) -O2 -g0 -fpie -ffreestanding -fno-stack-protector -fno-asynchronous-unwind-tables \
	-fcf-protection=none -fomit-frame-pointer -mno-red-zone -fvisibility=hidden -fno-jump-tables \
	$(call cc_option,-fno-tree-loop-distribute-patterns) -mgeneral-regs-only -I.

PROTOS := $(wildcard images/*.proto)
PB_C := $(PROTOS:images/%.proto=$(O)/images/%.pb-c.c)
PB_H := $(PB_C:.c=.h)
BPF := $(wildcard bpf/*.bpf.c)
SKELS := $(BPF:bpf/%.bpf.c=$(O)/bpf/%.skel.h)
BLOBS := $(filter-out pie/common.c,$(wildcard pie/*.c))
BLOB_H := $(BLOBS:pie/%.c=$(O)/pie/%.blob.h)
GEN := $(PB_H) $(SKELS) $(BLOB_H) $(O)/syscalls.h

USER := $(filter-out user/main.c,$(wildcard user/*/*.c))
USER_O := $(USER:%.c=$(O)/%.o) $(PB_C:.c=.o)
LIB := $(O)/libbcr.a

UNIT := $(patsubst %.c,$(O)/%,$(wildcard tests/unit/*.c))
FLOWC := $(patsubst %.c,$(O)/%,$(wildcard tests/flow/*.c))
FUZZ := $(patsubst %.c,$(O)/%,$(wildcard tests/fuzz/*.c))
# Targets: programs that are dumped and restored; they link nothing of bcr and are never sanitized.
TARGETS := $(patsubst %.c,$(O)/%,$(wildcard tests/kinds/*.c tests/flow/lib/*.c tests/apps/lib/*.c tests/bench/*.c))

.PHONY: all lib tests demo test check bench install clean deps
.DELETE_ON_ERROR:
.SECONDARY:

all: $(O)/bcr
lib: $(LIB)
tests: all $(UNIT) $(FLOWC) $(FUZZ) $(TARGETS)

$(O)/bcr: $(O)/user/main.o $(LIB)
	$(call say,LD,$@)
	$(Q)$(CC) $(CFLAGS) $(LDFLAGS) -o $@ $^ $(LIBS)

$(LIB): $(USER_O)
	$(call say,AR,$@)
	$(Q)rm -f $@ && ar rcs $@ $^

$(O)/user/%.o: user/%.c | $(GEN)
	$(call say,CC,$<)
	@mkdir -p $(@D)
	$(Q)$(CC) $(CPPFLAGS) $(CFLAGS) -MMD -MP -c -o $@ $<

$(O)/images/%.o: $(O)/images/%.c | $(PB_H)
	$(Q)$(CC) $(CPPFLAGS) $(CFLAGS) -w -c -o $@ $<

$(O)/images/%.pb-c.c $(O)/images/%.pb-c.h &: images/%.proto
	$(call say,PROTO,$<)
	@mkdir -p $(@D)
	$(Q)protoc-c --proto_path=images --c_out=$(O)/images $<

$(O)/bpf/%.bpf.o: bpf/%.bpf.c $(wildcard bpf/*.h vmlinux/*.h)
	$(call say,BPF,$<)
	@mkdir -p $(@D)
	$(Q)$(CLANG) $(BPF_CFLAGS) -c -o $@.tmp $< && $(LLVM_STRIP) -g $@.tmp && mv $@.tmp $@

$(O)/bpf/%.skel.h: $(O)/bpf/%.bpf.o
	$(Q)$(BPFTOOL) gen skeleton $< name $*_bpf > $@.tmp && mv $@.tmp $@

# The same with deliberate faults to choose from, for tests that have to notice them.
$(O)/tests/bpf/%.bpf.o: bpf/%.bpf.c $(wildcard bpf/*.h vmlinux/*.h)
	$(call say,BPF,$<)
	@mkdir -p $(@D)
	$(Q)$(CLANG) $(BPF_CFLAGS) -DBPF_TEST -c -o $@.tmp $< && $(LLVM_STRIP) -g $@.tmp && mv $@.tmp $@

$(O)/tests/bpf/%.skel.h: $(O)/tests/bpf/%.bpf.o
	$(Q)$(BPFTOOL) gen skeleton $< name $*_bpf > $@.tmp && mv $@.tmp $@

$(O)/pie/%.elf: pie/%.c $(wildcard pie/*.h) pie/pie.lds
	$(call say,PIE,$<)
	@mkdir -p $(@D)
	$(Q)$(CC) $(PIE_CFLAGS) -c -o $(O)/pie/$*.o $<
	$(Q)ld -static -z noexecstack --no-warn-rwx-segments -T pie/pie.lds -o $@ $(O)/pie/$*.o

$(O)/pie/%.blob.h: $(O)/pie/%.elf tools/embed
	$(Q)tools/embed $< $* > $@.tmp && mv $@.tmp $@

# Names of system calls, from the kernel headers bcr is built with: one line {"name", number}, each.
$(O)/syscalls.h:
	@mkdir -p $(@D)
	$(Q)echo '#include <asm/unistd.h>' | $(CC) -E -dM -x c - | \
		awk '$$2 ~ /^__NR_/ && $$3 ~ /^[0-9]+$$/ { print "{ \"" substr($$2, 6) "\", " $$3 " }," }' | sort > $@.tmp && mv $@.tmp $@

$(O)/tests/unit/%: tests/unit/%.c $(LIB)
	$(call say,CC,$@)
	@mkdir -p $(@D)
	$(Q)$(CC) $(CPPFLAGS) -Itests/lib $(CFLAGS) -MMD -MP $(LDFLAGS) -o $@ $< $(LIB) $(LIBS)

$(FLOWC): $(O)/tests/flow/%: tests/flow/%.c $(LIB)
	$(call say,CC,$@)
	@mkdir -p $(@D)
	$(Q)$(CC) $(CPPFLAGS) -Itests/lib $(CFLAGS) -MMD -MP $(LDFLAGS) -o $@ $< $(LIB) $(LIBS)

$(O)/tests/flow/track_order: $(O)/tests/bpf/track.skel.h

# The fuzzer is coverage-guided by clang's libFuzzer: the decoders are compiled again, instrumented.
FUZZ_SRC := $(wildcard user/base/*.c user/model/*.c user/image/*.c user/kinds/*.c user/sys/*.c)
$(FUZZ): $(O)/tests/fuzz/%: tests/fuzz/%.c $(FUZZ_SRC) $(PB_C) | $(GEN)
	$(call say,FUZZ,$@)
	@mkdir -p $(@D)
	$(Q)$(CLANG) $(CPPFLAGS) -Itests/lib -std=gnu11 -O1 -g -w -fsanitize=fuzzer,address,undefined \
		-fno-sanitize-recover=undefined -o $@ $< $(FUZZ_SRC) $(PB_C) $(LIBS)

$(TARGETS): $(O)/%: %.c $(wildcard tests/lib/*.h)
	$(call say,CC,$@)
	@mkdir -p $(@D)
	$(Q)$(CC) -D_GNU_SOURCE -Itests/lib -std=gnu11 -O2 -g $(WARN) -o $@ $< -lpthread -lm

deps:
	tools/install-deps

demo:
	tools/install-deps
	$(MAKE) all
	tools/demo $(O)/bcr

# Dependencies may have been installed a moment ago: a sub-make looks them up again.
test:
	tools/install-deps
	$(MAKE) tests
	tests/run -b $(O) $(T)

check:
	$(MAKE) tests
	tests/run -b $(O) -u $(T)

bench:
	$(MAKE) tests
	tests/bench/run -b $(O)

install: all
	install -D -m 755 $(O)/bcr $(DESTDIR)$(PREFIX)/sbin/bcr
	install -D -m 644 docs/bcr.8 $(DESTDIR)$(PREFIX)/share/man/man8/bcr.8
	install -D -m 644 tools/bcr.bash-completion $(DESTDIR)$(PREFIX)/share/bash-completion/completions/bcr

clean:
	rm -rf build build-san

-include $(shell find $(O) -name '*.d' 2>/dev/null)
