/* Trees that can be built again and trees that cannot: what is said of them, all of it, and how their tasks must be born. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/log.h"
#include "model/tree_check.h"

static int failures;
static int messages; /* where sentences go */
static struct tree_births made;
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
		t->exit_signal = SIGCHLD;
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

static bool shell_job;

static int check(const struct model *m, const uint8_t *waiting)
{
	tree_births_deinit(&made);
	memset(&flaw, 0, sizeof(flaw));
	return tree_check(m, shell_job, waiting, &made, &flaw);
}

/* The tree is freed. */
static void expect(int line, struct model *m, int want, const char *const *sentences)
{
	int err = check(m, NULL);
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
#define REFUSED_MODEL(sentences, m) expect(__LINE__, m, -EOPNOTSUPP, sentences)
#define REFUSED(sentences, ...) REFUSED_MODEL(sentences, TREE(__VA_ARGS__))
#define FLAWED(text_, ...)                                                                         \
	do {                                                                                       \
		expect(__LINE__, TREE(__VA_ARGS__), -EUCLEAN, NULL);                               \
		EXPECT(strstr(flaw.text, text_), "the flaw is '%s', not '%s'", flaw.text, text_);  \
	} while (0)
#define LINES(...) ((const char *const[]){ __VA_ARGS__, NULL })

/* Who makes the task, and how. */
#define MADE(i, maker_, way_, early_)                                                              \
	EXPECT(made.tasks[i].maker == (maker_) && made.tasks[i].way == (way_) && made.tasks[i].early == (early_), \
	       "task %d: made by %zu, way %d, early %d", i, made.tasks[i].maker, made.tasks[i].way, made.tasks[i].early)

#define HELPER(i, pid_, sid_, parent_)                                                             \
	EXPECT(made.helpers.nr > (i) && made.helpers.v[i].pid == (pid_) && made.helpers.v[i].sid == (sid_) && \
	       made.helpers.v[i].parent == (parent_), "helper %d", i)

static void built(void)
{
	BUILT({ 100, 1, 100, 100 });
	MADE(0, TREE_OUTSIDE, TREE_CHILD, false);
	/* With --shell-job the root is in somebody else's session and group, and so may others be. */
	shell_job = true;
	BUILT({ 100, 1, 90, 80 }, { 101, 100, 90, 80 }, { 102, 101, 102, 80 });
	EXPECT(!made.helpers.nr, "helpers for groups that are there");
	shell_job = false;
	BUILT({ 100, 1, 100, 100 }, { 101, 100, 101, 101 }, { 102, 101, 100, 100 }, { 103, 101, 103, 101 });
	EXPECT(made.tasks[1].sid == 100 && made.tasks[2].sid == 100 && made.tasks[3].sid == 101, "born in %d, %d, %d",
	       made.tasks[1].sid, made.tasks[2].sid, made.tasks[3].sid);
	MADE(1, 0, TREE_CHILD, false);
	MADE(2, 1, TREE_CHILD, true);
	MADE(3, 1, TREE_CHILD, false);
	EXPECT(made.tasks[1].parent == 0 && made.tasks[2].parent == 1 && made.tasks[3].parent == 1, "parents");
}

static void leaders_gone(void)
{
	/* A daemon: bcr makes the helper, which makes the root. */
	BUILT({ 100, 1, 90, 80 }, { 101, 100, 80, 80 });
	HELPER(0, 80, 80, TREE_OUTSIDE);
	HELPER(1, 90, 80, 0u);
	MADE(0, 2, TREE_SISTER, false);
	MADE(1, 0, TREE_CHILD, false);
	/* Below a root that leads its own. */
	BUILT({ 100, 1, 100, 100 }, { 101, 100, 55, 55 }, { 102, 100, 102, 55 }, { 103, 100, 66, 100 });
	EXPECT(made.helpers.nr == 2, "%zu helpers", made.helpers.nr);
	HELPER(0, 55, 55, 0u);
	HELPER(1, 66, 100, 3u);
	MADE(1, 4, TREE_SISTER, false);
	MADE(2, 4, TREE_SISTER, false);
	MADE(3, 0, TREE_CHILD, false);
	/* Adopted at two heights: the helper is below the lower one. */
	BUILT({ 100, 1, 100, 100 }, { 101, 100, 55, 55 }, { 102, 100, 102, 102 }, { 103, 102, 55, 55 });
	HELPER(0, 55, 55, 2u);
	MADE(1, 4, TREE_ORPHAN, false);
	MADE(3, 4, TREE_SISTER, false);
	EXPECT(made.tasks[0].adopts && !made.tasks[2].adopts, "who adopts");
	/* Its parent was in that session as well, before it made its own. */
	BUILT({ 100, 1, 100, 55 }, { 101, 100, 101, 101 }, { 102, 101, 102, 55 });
	MADE(0, 3, TREE_SISTER, false);
	MADE(1, 0, TREE_CHILD, false);
	MADE(2, 1, TREE_CHILD, true);
}

static void orphans(void)
{
	/* The leader is a sister, or is further down. */
	BUILT({ 100, 1, 100, 100 }, { 102, 100, 102, 102 }, { 103, 100, 102, 102 });
	MADE(2, 1, TREE_SISTER, false);
	BUILT({ 100, 1, 100, 100 }, { 101, 100, 100, 100 }, { 102, 101, 102, 102 }, { 103, 100, 102, 102 });
	MADE(3, 2, TREE_ORPHAN, false);
	EXPECT(made.tasks[0].adopts, "nobody adopts");
	/* A sister has the exit signal of its maker, an orphan SIGCHLD. */
	struct model *m = TREE({ 100, 1, 100, 100 }, { 102, 100, 102, 102 }, { 103, 100, 102, 102 });
	m->tasks.v[1].exit_signal = SIGUSR1;
	EXPECT(!check(m, NULL), "cannot be built");
	MADE(2, 1, TREE_ORPHAN, false);
	m->tasks.v[2].exit_signal = SIGUSR2;
	REFUSED_MODEL(LINES("pid 103: its session 102 cannot be made again below its parent 100"), m);
}

static void refused(void)
{
	/* Between the two was somebody who has never been in that session. */
	REFUSED(LINES("pid 103: its session 101 cannot be made again below its parent 102"), { 100, 1, 100, 100 },
		{ 101, 100, 101, 101 }, { 102, 101, 100, 100 }, { 103, 102, 101, 101 });
	/* Two that adopt in one line: an orphan that is to come to the upper one comes to the lower one. */
	REFUSED(LINES("pid 105: its session 104 cannot be made again below its parent 100"), { 100, 1, 100, 100 },
		{ 101, 100, 101, 101 }, { 103, 101, 103, 103 }, { 104, 103, 104, 104 }, { 105, 100, 104, 104 },
		{ 106, 101, 104, 104 });
	/* Everything, in one go. */
	REFUSED(LINES("pid 102: its session 103 cannot", "pid 104: its session 105 cannot"), { 100, 1, 100, 100 },
		{ 101, 100, 101, 101 }, { 102, 101, 103, 103 }, { 103, 100, 103, 103 }, { 104, 101, 105, 105 }, { 105, 100, 105, 105 });
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
	FLAWED("pid 101 does not lead its session", { 100, 1, 100, 100 }, { 101, 100, 100, 100 }, { 102, 100, 100, 101 });
	FLAWED("its process group 55 is in another session", { 100, 1, 100, 100 }, { 101, 100, 55, 100 }, { 102, 100, 55, 102 });
	FLAWED("cannot be born in its own session 101", { 100, 1, 101, 101 }, { 101, 100, 101, 101 });
	/* Whoever would make it is below it. */
	FLAWED("made by a descendant of its own", { 100, 1, 100, 100 }, { 101, 100, 102, 102 }, { 102, 101, 102, 102 });
}

static void set_objects(struct task *t, uint32_t id)
{
	t->mm_id = t->files_id = t->fs_id = t->sighand_id = id;
}

static void sharing(void)
{
	struct model *m = TREE({ 100, 1, 100, 100 }, { 101, 100, 100, 100 }, { 102, 100, 100, 100 });
	uint8_t waiting[] = { 1, 0, 0 };
	struct task *t = m->tasks.v;

	set_objects(&t[0], 7);
	set_objects(&t[1], 8);
	set_objects(&t[2], 7);
	EXPECT(!check(m, waiting) && !*said() && !made.tasks[2].with_vm, "whoever waits for a vfork child shares with it");
	EXPECT(!check(m, NULL) && made.tasks[2].with_vm && made.tasks[2].with_sighand, "all with the parent");
	MADE(2, 0, TREE_CHILD, false);
	t[2].sighand_id = 9;
	EXPECT(!check(m, NULL) && made.tasks[2].with_vm && !made.tasks[2].with_sighand, "memory with the parent");
	/* No kernel does that. */
	t[2].mm_id = 9;
	t[2].sighand_id = 7;
	EXPECT(check(m, NULL) == -EOPNOTSUPP && strstr(said(), "pid 102: shares its signal handlers (CLONE_SIGHAND) with pid 100"),
	       "handlers");
	/* Descriptors and directories: with the parent, both or one. */
	t[2].sighand_id = 9;
	EXPECT(!check(m, NULL) && made.tasks[2].with_files && made.tasks[2].with_fs, "both with the parent");
	MADE(2, 0, TREE_CHILD, false);
	t[2].files_id = 9;
	EXPECT(!check(m, NULL) && !made.tasks[2].with_files && made.tasks[2].with_fs, "one with the parent");
	/* Memory with a sister: no more with the parent then. */
	t[2].mm_id = 8;
	EXPECT(check(m, NULL) == -EOPNOTSUPP && strstr(said(), "pid 102: shares its memory (CLONE_VM) with pid 101"), "and directories");
	t[2].fs_id = 9;
	EXPECT(!check(m, NULL) && made.tasks[2].with_vm && !made.tasks[2].with_fs, "memory with a sister");
	MADE(2, 1, TREE_SISTER, false);
	t[2].mm_id = 9;
	/* Descriptors with a sister, which makes it. */
	t[2].files_id = 8;
	EXPECT(!check(m, NULL) && made.tasks[2].with_files && !made.tasks[2].with_fs, "one with a sister");
	MADE(2, 1, TREE_SISTER, false);
	/* Each with another one. */
	t[2].fs_id = 7;
	EXPECT(check(m, NULL) == -EOPNOTSUPP, "nobody can make it");
	EXPECT(strstr(said(), "pid 102: shares its descriptors (CLONE_FILES) with pid 101, but not so"), "other words");
	/* Zombies have none of them, and do not share that. */
	for (size_t i = 0; i < m->tasks.nr; i++)
		set_objects(&t[i], 0);
	EXPECT(!check(m, NULL) && !*said(), "none is not an object");
	model_destroy(m);
	/* The sister leads a session by now. */
	m = TREE({ 100, 1, 100, 100 }, { 101, 100, 101, 101 }, { 102, 100, 100, 100 }, { 103, 100, 101, 101 });
	for (int i = 1; i < 4; i++)
		m->tasks.v[i].files_id = 7;
	EXPECT(check(m, NULL) == -EOPNOTSUPP, "102 cannot be made by 101, which was never in its session");
	said();
	m->tasks.v[2].files_id = 8;
	EXPECT(!check(m, NULL) && !*said(), "103 can");
	MADE(3, 1, TREE_SISTER, false);
	EXPECT(made.tasks[3].with_files, "without its descriptors");
	model_destroy(m);
	/* 102 has another program by now. */
	m = TREE({ 100, 1, 100, 100 }, { 102, 100, 100, 100 }, { 103, 102, 100, 100 });
	m->tasks.v[0].mm_id = m->tasks.v[2].mm_id = 7;
	m->tasks.v[1].mm_id = 8;
	EXPECT(check(m, NULL) == -EOPNOTSUPP && strstr(said(), "pid 103: shares its memory (CLONE_VM) with pid 100, but not so"),
	       "a grandparent's");
	/* An orphan is made by somebody in between. */
	model_destroy(m);
	m = TREE({ 100, 1, 100, 100 }, { 101, 100, 100, 100 }, { 102, 101, 102, 102 }, { 103, 100, 102, 102 });
	EXPECT(!check(m, NULL) && !*said(), "103 is an orphan");
	MADE(3, 2, TREE_ORPHAN, false);
	m->tasks.v[2].files_id = m->tasks.v[3].files_id = 7;
	EXPECT(check(m, NULL) == -EOPNOTSUPP && strstr(said(), "pid 103: shares its descriptors (CLONE_FILES) with pid 102"), "orphan");
	model_destroy(m);
}

/* Gathered refusals are one list, each once, under the name of the module that refused. */
static void gathered(void)
{
	struct model *m = TREE({ 100, 1, 100, 100 }, { 101, 100, 101, 101 }, { 102, 101, 103, 103 },
			       { 103, 100, 103, 103 });
	char text[4096] = "";

	/* The working directory is a fresh one, the test's own. */
	if (log_open_file(AT_FDCWD, "tree-check.log"))
		abort();
	refusals_begin();
	EXPECT(check(m, NULL) == -EOPNOTSUPP && !*said(), "said before the list is complete");
	refusals_forget();
	EXPECT(check(m, NULL) == -EOPNOTSUPP && check(m, NULL) == -EOPNOTSUPP, "refused twice");
	EXPECT(refusals_end() == 1, "not one refusal");
	EXPECT(strstr(said(), "pid 102: its session 103 cannot"), "not on standard error");
	FILE *f = fopen("tree-check.log", "re");
	if (!f || !fread(text, 1, sizeof(text) - 1, f))
		abort();
	fclose(f);
	EXPECT(strstr(text, "Error model/tree_check: pid 102: "), "the log has: %s", text);
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
	leaders_gone();
	orphans();
	refused();
	flawed();
	sharing();
	gathered();
	tree_births_deinit(&made);
	return failures ? 1 : 0;
}
