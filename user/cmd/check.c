/* bcr check: what this machine can do for bcr, and what is lost by what it cannot. */
#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>

#include "base/log.h"
#include "cmd/cmd.h"
#include "observe/observe.h"
#include "sys/probe.h"

/* Names that drivers ask for and that no part of bcr uses. One that comes into use becomes a probe, and leaves. */
static const char *const unused_features[] = {
	"mem_dirty_track",    "aio_remap",	  "tun",
	"tun_ns",	      "userns",		  "fdinfo_lock",
	"seccomp_suspend",    "seccomp_filters",  "loginuid",
	"cgroupns",	      "autofs",		  "tcp_half_closed",
	"compat_cr",	      "uffd",		  "uffd-noncoop",
	"can_map_vdso",	      "sk_ns",		  "sk_unix_file",
	"net_diag_raw",	      "nsid",		  "link_nsid",
	"timens",	      "external_net_ns",  "newifindex",
	"nftables",	      "has_ipt_legacy",	  "pidfd_store",
	"ns_pid",	      "apparmor_stacking", "network_lock_nftables",
	"sockopt_buf_lock",   "memfd_hugetlb",	  "move_mount_set_group",
	"openat2",	      "ipv6_freebind",	  "overlayfs_maps",
	"breakpoints",
};
enum { NR_UNUSED = sizeof(unused_features) / sizeof(unused_features[0]) };

struct answer {
	const char *name, *what, *lost;
	enum probe_need need;
	int err;
	const char *why; /* static text, or NULL: strerror(err) says it */
};

static const char *need_name(enum probe_need need)
{
	static const char *const names[] = { "needed", "fallback", "extra", "unused" };

	return names[need];
}

/* The observer's own probe: program loads, iterators, tracepoints. */
static struct answer ask_bpf(void)
{
	struct answer a = {
		.name = "bpf",
		.what = "BPF: task iterators and open-coded walks, with BTF",
		.lost = "state is gathered from /proc and by ptrace, which is slower",
		.need = PROBE_FALLBACK,
	};

	a.err = observe_bpf_ops.probe(&a.why);
	return a;
}

static struct answer ask(const struct probe *p)
{
	return (struct answer){ .name = p->name, .what = p->what, .lost = p->lost,
				.need = p->need, .err = p->run() };
}

static const char *why(const struct answer *a)
{
	return a->why && *a->why ? a->why : strerror(-a->err);
}

static json_t *answer_json(const struct answer *a)
{
	json_t *o = json_pack("{s:s, s:s, s:s, s:b}", "name", a->name, "what", a->what, "need",
			      need_name(a->need), "supported", !a->err);

	if (o && a->err) {
		json_object_set_new(o, "why", json_string(why(a)));
		json_object_set_new(o, "lost", json_string(a->lost));
	}
	return o;
}

static void print_answer(const struct answer *a)
{
	printf("  %-26s %-4s %s\n", a->name, a->err ? "no" : "yes", a->what);
	if (a->err)
		printf("  %26s      %s; without it %s\n", "", why(a), a->lost);
}

struct report {
	json_t *list; /* NULL: text */
	unsigned missing_needed, missing_other, asked;
};

static void report_answer(struct report *r, const struct answer *a)
{
	r->asked++;
	if (a->err && a->need == PROBE_NEEDED)
		r->missing_needed++;
	else if (a->err && a->need != PROBE_UNUSED)
		r->missing_other++;
	if (r->list)
		json_array_append_new(r->list, answer_json(a));
	else
		print_answer(a);
}

static bool wanted(const struct options *o, enum probe_need need)
{
	switch (need) {
	case PROBE_NEEDED:
	case PROBE_FALLBACK:
		return true;
	case PROBE_EXTRA:
		return o->extra || o->all;
	case PROBE_UNUSED:
		return o->all;
	}
	return false;
}

static int finish_json(const struct report *r, const struct utsname *uts)
{
	json_t *root = json_pack("{s:s, s:s, s:s, s:b, s:O}", "version", BCR_VERSION, "kernel",
				 uts->release, "machine", uts->machine, "works",
				 !r->missing_needed, "features", r->list);

	if (!root)
		return fail(-ENOMEM, "check: make JSON");
	int err = json_dumpf(root, stdout, JSON_INDENT(2) | JSON_PRESERVE_ORDER);
	json_decref(root);
	putchar('\n');
	return err ? fail(-EIO, "check: write JSON") : 0;
}

static void finish_text(const struct report *r)
{
	if (r->missing_needed)
		printf("bcr does not work here: %u of %u things it needs or uses are missing, %u of them needed\n",
		       r->missing_needed + r->missing_other, r->asked, r->missing_needed);
	else if (r->missing_other)
		printf("Looks good, with %u of %u things missing that bcr can do without.\n",
		       r->missing_other, r->asked);
	else
		printf("Looks good.\n");
}

static int check_machine(const struct options *o)
{
	struct report r = { .list = o->json ? json_array() : NULL };
	struct utsname uts;
	const struct probe *p;
	int err = 0;

	uname(&uts);
	if (!r.list)
		printf("bcr %s on Linux %s, %s\n", BCR_VERSION, uts.release, uts.machine);

	struct answer bpf = ask_bpf();
	report_answer(&r, &bpf);
	for (size_t i = 0; (p = probe_at(i)); i++) {
		if (!wanted(o, p->need))
			continue;
		struct answer a = ask(p);
		report_answer(&r, &a);
	}
	if (r.list)
		err = finish_json(&r, &uts);
	else
		finish_text(&r);
	json_decref(r.list);
	if (!err && r.missing_needed)
		err = -EOPNOTSUPP;
	return err;
}

static int find_answer(const char *name, struct answer *ret)
{
	const struct probe *p;

	if (!strcmp(name, "bpf")) {
		*ret = ask_bpf();
		return 0;
	}
	for (size_t i = 0; (p = probe_at(i)); i++) {
		if (!strcmp(p->name, name)) {
			*ret = ask(p);
			return 0;
		}
	}
	for (size_t i = 0; i < NR_UNUSED; i++) {
		if (!strcmp(unused_features[i], name)) {
			*ret = (struct answer){ .name = name, .what = name, .need = PROBE_UNUSED,
						.err = -EOPNOTSUPP, .why = "not used by bcr yet",
						.lost = "nothing today" };
			return 0;
		}
	}
	return fail(0, "check: there is no feature '%s'; --feature list prints the names", name);
}

static int list_features(void)
{
	const struct probe *p;

	puts("bpf");
	for (size_t i = 0; (p = probe_at(i)); i++)
		puts(p->name);
	for (size_t i = 0; i < NR_UNUSED; i++)
		puts(unused_features[i]);
	return 0;
}

static int check_feature(const struct options *o)
{
	struct answer a = { 0 };

	if (!strcmp(o->feature, "list"))
		return list_features();
	int err = find_answer(o->feature, &a);
	if (err)
		return err;
	if (a.need == PROBE_UNUSED) {
		a.err = a.err ? a.err : -EOPNOTSUPP;
		a.why = "not used by bcr yet";
	}
	if (o->json) {
		json_t *root = answer_json(&a);

		if (!root || json_dumpf(root, stdout, JSON_PRESERVE_ORDER))
			err = fail(-EIO, "check: write JSON");
		putchar('\n');
		json_decref(root);
	} else if (a.err) {
		log_error("%s: %s", a.name, why(&a));
	} else {
		printf("%s is supported\n", a.name);
	}
	return err ? err : a.err;
}

int cmd_check(int argc, char **argv)
{
	_cleanup_dirs_ struct cmd_dirs dirs = CMD_DIRS_NONE;
	struct options o;
	int code;

	if (!cmd_parse(VERB_CHECK, argc, argv, false, &o, &code))
		return code;

	int err = cmd_begin(&o, &dirs);
	if (!err)
		err = o.feature ? check_feature(&o) : check_machine(&o);
	fflush(stdout);
	options_deinit(&o);
	return cmd_exit_code(err);
}
