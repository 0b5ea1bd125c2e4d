/* An io_uring ring that has neither a descriptor nor a mapping of its own (Linux 6.5). */
#include <linux/io_uring.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "target.h"

/* linux/io_uring.h of today: older headers do not have them. */
enum { SETUP_NO_MMAP = 1 << 14, SETUP_REGISTERED_FD_ONLY = 1 << 15, RING_BYTES = 8192 };

static uint64_t ring_memory(void)
{
	void *p = mmap(NULL, RING_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);

	CHECK(p != MAP_FAILED);
	return (uintptr_t)p;
}

int main(void)
{
	struct io_uring_params p = { .flags = SETUP_NO_MMAP | SETUP_REGISTERED_FD_ONLY };

	/* The last field of both is where the program's own memory is told. */
	p.cq_off.resv2 = ring_memory();
	p.sq_off.resv2 = ring_memory();
	/* A kernel without that: one with a descriptor is known by the same. */
	if (syscall(SYS_io_uring_setup, 4, &p) < 0) {
		p = (struct io_uring_params){};
		CHECK(syscall(SYS_io_uring_setup, 4, &p) >= 0);
	}
	target_expect_refusal("has an io_uring ring");
	target_ready();
	return target_pass();
}
