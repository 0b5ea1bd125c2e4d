/*
 * A mapping that is registered with another userfaultfd cannot be protected: it is copied inside the stop, and what the other
 * one protects stays protected.
 */
#include "track_rig.h"

#include <linux/userfaultfd.h>
#include <sys/ioctl.h>

enum { BYTES = 2 << 20, CUTS = 5 };

static int target(void)
{
	uint8_t *memory = rig_memory(BYTES), *other = rig_memory(2 * BYTES);
	uint64_t random = 3;

	memset(memory, 1, BYTES);
	memset(other, 2, 2 * BYTES);
	snprintf(rig_shared->why, sizeof(rig_shared->why), "%lx", (unsigned long)memory);
	rig_shared->ready = 1;
	while (!rig_shared->go) {
		*(uint64_t *)(memory + rig_random(&random) % (BYTES / 8) * 8) = random;
		*(uint64_t *)(other + rig_random(&random) % (BYTES / 4) * 8) = random;
		if (++rig_shared->steps % 1000 == 0)
			usleep(1000);
	}
	return 0;
}

static void run(const char *backend)
{
	struct uffdio_api api = { .api = UFFD_API };
	struct rig r;
	int fd;

	rig_start(&r, target);
	unsigned long start = strtoul(rig_shared->why, NULL, 16);
	rig_shared->why[0] = 0;
	/* For write protection, but nothing is protected: nobody has to answer. */
	struct uffdio_register reg = { .range = { start, BYTES }, .mode = UFFDIO_REGISTER_MODE_WP };
	RIG_NEED(!rig_userfaultfd(&r, r.pid, &fd));
	RIG_NEED(!ioctl(fd, UFFDIO_API, &api));
	RIG_NEED(!ioctl(fd, UFFDIO_REGISTER, &reg));
	rig_foreign = true;
	rig_open(&r, backend, NULL);
	for (int i = 0; i < CUTS; i++) {
		rig_cut(&r, 4);
		if (tracker_stats(r.tracker)->cut_pages_copied < BYTES / RIG_PAGE)
			rig_fail("only %llu pages were copied inside the stop",
				 (unsigned long long)tracker_stats(r.tracker)->cut_pages_copied);
	}
	rig_print(&r, "foreign userfaultfd");
	rig_close(&r);
	/* Still the other one's: registering it once more by the same descriptor works, by a new one would not. */
	RIG_NEED(!ioctl(fd, UFFDIO_REGISTER, &reg));
	close(fd);
	rig_end(&r);
}

int main(void)
{
	const char *backend;
	size_t i = 0, ran = 0;

	log_set_modules(getenv("BCR_LOG"));
	while ((backend = rig_backend(&i))) {
		if (strncmp(backend, "wp-", 3))
			continue; /* it protects nothing */
		run(backend);
		ran++;
	}
	if (!ran) {
		puts("no back end here protects memory");
		return 77;
	}
	puts("PASS");
	return 0;
}
