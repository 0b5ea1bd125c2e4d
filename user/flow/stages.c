/* The loop that runs stages, and what flows share: time, progress, the status descriptor. */
#include "flow/stages.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"

uint64_t clock_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000000ULL + ts.tv_nsec / 1000;
}

/* What this thread has had of a processor: a stage that waits, or is kept waiting, takes longer than that. */
static uint64_t cpu_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
	return ts.tv_sec * 1000000ULL + ts.tv_nsec / 1000;
}

void status_ready(int fd)
{
	if (fd < 0)
		return;
	if (write(fd, "", 1) != 1)
		log_warn("status descriptor %d: %s", fd, strerror(errno));
	close(fd);
}

static int run_stage(const struct stage *s, struct flow *f, bool (*stop)(void),
		     void (*timed)(struct flow *f, const char *name, uint64_t us))
{
	const char *chosen = getenv("BCR_FAIL_AT");
	bool inject = chosen && !strcmp(chosen, s->name);
	uint64_t start = clock_us(), start_cpu = cpu_us();
	int err;

	if (stop && stop())
		return fail(-EINTR, "told to stop before stage %s", s->name);
	if (inject && !s->undo)
		return fail(-ECANCELED, "stage %s: made to fail by BCR_FAIL_AT", s->name);
	err = s->run(f);
	if (err) {
		log_info("stage %s failed after %.3f ms", s->name, (clock_us() - start) / 1000.0);
		return err;
	}
	uint64_t us = clock_us() - start;

	if (timed)
		timed(f, s->name, us);
	log_info("stage %s: %.3f ms, %.3f of a processor", s->name, us / 1000.0, (cpu_us() - start_cpu) / 1000.0);
	return inject ? fail(-ECANCELED, "stage %s: made to fail by BCR_FAIL_AT", s->name) : 0;
}

int stages_run(const struct stage *stages, size_t nr, struct flow *f, bool (*stop)(void),
	       void (*timed)(struct flow *f, const char *name, uint64_t us))
{
	for (size_t i = 0; i < nr; i++) {
		int err = run_stage(&stages[i], f, stop, timed);

		if (!err)
			continue;
		for (size_t k = i + 1; k-- > 0;) {
			if (stages[k].undo)
				stages[k].undo(f);
		}
		return err;
	}
	return 0;
}

void stages_list(const struct stage *stages, size_t nr)
{
	for (size_t i = 0; i < nr; i++)
		puts(stages[i].name);
}

static struct {
	const char *what;
	uint64_t start_us, shown_us;
} progress;

void progress_begin(const char *what)
{
	progress.what = what;
	progress.start_us = clock_us();
	progress.shown_us = 0;
}

void progress_show(uint64_t done_bytes, uint64_t all_bytes)
{
	uint64_t now = clock_us();

	if (!progress.what || now - progress.start_us < 1000000 || now - progress.shown_us < 100000)
		return;
	progress.shown_us = now;
	fprintf(stderr, "\r%s: %llu of %llu MiB ", progress.what,
		(unsigned long long)(done_bytes >> 20), (unsigned long long)(all_bytes >> 20));
}

void progress_end(void)
{
	if (progress.shown_us)
		fputs("\r\033[K", stderr);
	progress.what = NULL;
	progress.shown_us = 0;
}
