/* Removed directories of damaged images: a path with fewer parts than there are directories one inside the other. Nothing is made. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "restore/ghost_dir.h"

static int failures;

/* `levels` directories, each in the one before; the innermost is in use, by this path. */
static int make(const char *path, unsigned levels)
{
	struct model *m = model_create();
	struct restore_plan plan = { .m = m, .fd_ghosts = 100 };
	struct restore r = { .plan = &plan, .m = m };
	struct ghost_dirs dirs = {};
	uint32_t parent = 0;

	for (unsigned i = 0; i < levels; i++) {
		struct ghost *g = model_add_ghost(m, 1 + i);

		g->mode = S_IFDIR | 0700;
		g->uid = getuid();
		g->gid = getgid();
		g->parent_id = parent;
		parent = g->id;
	}
	struct file *f = model_add_file(m, 100);
	f->type = FILE_REG;
	f->path = strdup(path);
	f->reg.ghost_id = parent;
	int err = ghost_dirs_remove(&dirs, ghost_dirs_make(&r, &dirs));
	model_destroy(m);
	return err;
}

static void check(bool ok, const char *what)
{
	if (ok)
		return;
	printf("wrong: %s\n", what);
	failures++;
}

int main(void)
{
	char base[] = "removed-XXXXXX", path[256], cwd[128];

	log_set_err_fd(open("/dev/null", O_WRONLY | O_CLOEXEC));
	check(make("/x", 2) && make("/x", 3) && make("/x/y", 5), "too few parts are refused");
	check(make("x", 1) && make("", 1), "a path that is none is refused");
	check(access("/x", F_OK), "something was made");
	if (!mkdtemp(base) || !getcwd(cwd, sizeof(cwd)))
		return 1;
	snprintf(path, sizeof(path), "%s/%s/a/b/c", cwd, base);
	check(!make(path, 3) && !make(path, 1), "as many parts as there are directories");
	check(!rmdir(base), "something was left");
	puts(failures ? "FAIL" : "PASS");
	return failures != 0;
}
