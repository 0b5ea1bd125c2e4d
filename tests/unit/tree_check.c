/* Trees that can be built again and trees that cannot: what is said of them, all of it, and how their tasks must be born. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/log.h"
#include "model/tree_check.h"

enum { MAX = 8 };

static int failures;
static int messages; /* where sentences go */
static struct tree_birth births[MAX];
static struct tree_flaw flaw;

#define EXPECT(cond, ...)                                                                          \
	do {                                                                                       \
		if (!(cond)) {                                                                     \
			printf("line %d: not so: %s: ", __LINE__, #cond);                          \
			printf(__VA_ARGS__);                                                       \
			putchar('\n');                                                             \
			failures++;                                                                \
		}                                                                                  \
	} while (0)

struct row {
	pid_t pid, ppid, pgid, sid;
};

static struct model *tree(const struct row *rows, size_t nr)
{
	struct model *m = model_create();

	if (!m)
		abort();
	for (size_t i = 0; i < nr; i++) {
		struct task *t = VEC_ADD(&m->tasks);

		if (!t)
			abort();
		t->pid = rows[i].pid;
		t->ppid = rows[i].ppid;
		t->pgid = rows[i].pgid;
		t->sid = rows[i].sid;
		t->state = TASK_ALIVE;
	}
	return m;
}

#define TREE(...) tree((const struct row[]){ __VA_ARGS__ }, sizeof((const struct row[]){ __VA_ARGS__ }) / sizeof(struct row))

static const char *said(void)
{
	static char text[4096];
	ssize_t len = pread(messages, text, sizeof(text) - 1, 0);

	text[len > 0 ? len : 0] = 0;
	if (ftruncate(messages, 0) || lseek(messages, 0, SEEK_SET))
		abort();
	return text;
}

/* The tree is freed. */
static void expect(int line, struct model *m, int want, const char *const *sentences)
{
	memset(&flaw, 0, sizeof(flaw));
	int err = tree_check(m, births, &flaw);
	const char *text = said();
	size_t lines = 0, wanted = 0;

	for (const char *p = text; (p = strchr(p, '\n')); p++)
		lines++;
	EXPECT(err == want, "line %d: %d, not %d; it says: %s", line, err, want, text);
	for (; sentences && sentences[wanted]; wanted++)
		EXPECT(strstr(text, sentences[wanted]), "line %d: '%s' does not say '%s'", line, text, sentences[wanted]);
	EXPECT(lines == wanted, "line %d: %zu sentences, not %zu: %s", line, lines, wanted, text);
	model_destroy(m);
}

#define BUILT(...) expect(__LINE__, TREE(__VA_ARGS__), 0, NULL)
#define REFUSED(sentences, ...) expect(__LINE__, TREE(__VA_ARGS__), -EOPNOTSUPP, sentences)
#define FLAWED(text_, ...)                                                                         \
	do {                                                                                       \
		expect(__LINE__, TREE(__VA_ARGS__), -EUCLEAN, NULL);                               \
		EXPECT(strstr(flaw.text, text_), "the flaw is '%s', not '%s'", flaw.text, text_);  \
	} while (0)
#define LINES(...) ((const char *const[]){ __VA_ARGS__, NULL })

static void built(void)
{
	BUILT({ 100, 1, 100, 100 });
	/* With --shell-job the root is in somebody else's session and group, and so may others be. */
	BUILT({ 100, 1, 90, 80 }, { 101, 100, 90, 80 }, { 102, 101, 102, 80 });
	BUILT({ 100, 1, 100, 100 }, { 101, 100, 101, 101 }, { 102, 101, 100, 100 }, { 103, 101, 103, 101 });
	EXPECT(births[1].sid == 100 && births[2].sid == 100 && births[3].sid == 101, "born in %d, %d, %d", births[1].sid,
	       births[2].sid, births[3].sid);
	EXPECT(!births[1].early && births[2].early && !births[3].early, "who is early");
	EXPECT(births[1].parent == 0 && births[2].parent == 1 && births[3].parent == 1, "parents");
}

static void refused(void)
{
	REFUSED(LINES("pid 101: the leader of its session 55 has exited"), { 100, 1, 100, 100 }, { 101, 100, 101, 55 });
	REFUSED(LINES("pid 101: the leader of its process group 66 has exited"), { 100, 1, 100, 100 }, { 101, 100, 66, 100 });
	/* Everything, in one go. */
	REFUSED(LINES("pid 101: the leader of its session 55 has exited", "pid 101: the leader of its process group 55 has exited",
		      "pid 102: the leader of its process group 66 has exited"),
		{ 100, 1, 100, 100 }, { 101, 100, 55, 55 }, { 102, 100, 66, 100 });
	/* The leader is a sister of whoever was its grandparent. */
	REFUSED(LINES("pid 103: it is in session 102, but not below its leader"), { 100, 1, 100, 100 }, { 102, 100, 102, 102 },
		{ 103, 100, 102, 102 });
	/* Between the two was somebody who has never been in that session. */
	REFUSED(LINES("pid 103: its session 101 cannot be made again below its parent 102"), { 100, 1, 100, 100 },
		{ 101, 100, 101, 101 }, { 102, 101, 100, 100 }, { 103, 102, 101, 101 });
}

static void flawed(void)
{
	FLAWED("its parent 77 is not in the tree", { 100, 1, 100, 100 }, { 101, 77, 100, 100 });
	FLAWED("its parent 102 is not in the tree", { 100, 1, 100, 100 }, { 101, 102, 100, 100 }, { 102, 101, 100, 100 });
	FLAWED("its parent 101 is not in the tree", { 100, 1, 100, 100 }, { 101, 101, 100, 100 });
	FLAWED("its process group 100 is in another session", { 100, 1, 100, 100 }, { 101, 100, 100, 101 });
	FLAWED("session or process group is not known", { 100, 1, 100, 100 }, { 101, 100, 100, 0 });
	FLAWED("session or process group is not known", { 100, 1, 100, 100 }, { 101, 100, -1, 100 });
	EXPECT(flaw.pid == 101, "the flaw is in pid %d", flaw.pid);
}

static void set_objects(struct task *t, uint32_t id)
{
	t->mm_id = t->files_id = t->fs_id = t->sighand_id = id;
}

static void sharing(void)
{
	struct model *m = TREE({ 100, 1, 100, 100 }, { 101, 100, 100, 100 }, { 102, 100, 100, 100 });
	uint8_t waiting[] = { 1, 0, 0 };

	set_objects(&m->tasks.v[0], 7);
	set_objects(&m->tasks.v[1], 8);
	set_objects(&m->tasks.v[2], 7);

	EXPECT(!tree_check_sharing(m, waiting) && !*said(), "whoever waits for a vfork child shares with it");
	EXPECT(tree_check_sharing(m, NULL) == -EOPNOTSUPP, "it is not refused");
	EXPECT(strstr(said(), "pid 102 shares memory, descriptors, directories or signal handlers with pid 100"), "other words");
	/* One of the four is enough. */
	uint32_t *ids[] = { &m->tasks.v[2].mm_id, &m->tasks.v[2].files_id, &m->tasks.v[2].fs_id, &m->tasks.v[2].sighand_id };
	for (size_t keep = 0; keep < 4; keep++) {
		for (size_t i = 0; i < 4; i++)
			*ids[i] = i == keep ? 7 : 9;
		EXPECT(tree_check_sharing(m, NULL) == -EOPNOTSUPP && *said(), "object %zu is not missed", keep);
	}
	set_objects(&m->tasks.v[2], 9);
	EXPECT(!tree_check_sharing(m, NULL) && !*said(), "nothing is shared");
	/* Zombies have none of them, and do not share that. */
	for (size_t t = 0; t < m->tasks.nr; t++)
		set_objects(&m->tasks.v[t], 0);
	EXPECT(!tree_check_sharing(m, NULL) && !*said(), "none is not an object");
	model_destroy(m);
}

/* Gathered refusals are one list, each once, under the name of the module that refused. */
static void gathered(void)
{
	struct model *m = TREE({ 100, 1, 100, 100 }, { 101, 100, 66, 100 });
	char text[4096] = "";

	/* The working directory is a fresh one, the test's own. */
	if (log_open_file(AT_FDCWD, "tree-check.log"))
		abort();
	refusals_begin();
	EXPECT(tree_check(m, births, &flaw) == -EOPNOTSUPP && !*said(), "said before the list is complete");
	refusals_forget();
	EXPECT(tree_check(m, births, &flaw) == -EOPNOTSUPP && tree_check(m, births, &flaw) == -EOPNOTSUPP, "refused twice");
	EXPECT(refusals_end() == 1, "not one refusal");
	EXPECT(strstr(said(), "pid 101: the leader of its process group 66"), "not on standard error");
	FILE *f = fopen("tree-check.log", "re");
	if (!f || !fread(text, 1, sizeof(text) - 1, f))
		abort();
	fclose(f);
	EXPECT(strstr(text, "Error model/tree_check: pid 101: "), "the log has: %s", text);
	if (unlink("tree-check.log"))
		abort();
	model_destroy(m);
}

int main(void)
{
	messages = memfd_create("messages", MFD_CLOEXEC);
	if (messages < 0)
		return 1;
	log_set_err_fd(messages);
	built();
	refused();
	flawed();
	sharing();
	gathered();
	return failures ? 1 : 0;
}
