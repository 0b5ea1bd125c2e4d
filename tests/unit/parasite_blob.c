/*
 * The parasite blob, run here as it is in a target: copied to an arbitrary address (it must need no relocation), it makes its calls,
 * and goes back by the signal frame to every register, the FPU included, as nobody traces it.
 */
#include <signal.h>
#include <stdalign.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "model/cpu-x86_64.h"
#include "pie/parasite.blob.h"
#include "pie/parasite.h"
#include "sys/sigframe-x86_64.h"
#include "sys/tracee.h"

enum { AREA_BYTES = 1 << 20, FRAME_AT = 1 << 16, BATCH_AT = 1 << 17, STACK_TOP = 1 << 19 };

/* A word that the child counts up until it is told to stop, with the count in a vector register. */
static struct {
	volatile int stop, running;
	volatile double x;
} *shared;

static int failures;

static void check(int ok, const char *what)
{
	if (ok)
		return;
	printf("wrong: %s\n", what);
	failures++;
}

/* Adds up in registers only: a register that comes back wrong makes another sum. */
static int child(void)
{
	double sum = 0;
	long n = 0;

	shared->running = 1;
	while (!shared->stop || n < 1000000) {
		sum += 1.0;
		n++;
		if (sum != (double)n)
			return 5;
	}
	return 0;
}

static int run_untraced(pid_t pid, unsigned char *area)
{
	static alignas(64) uint8_t xsave[CPU_XSAVE_MAX];
	struct ptrace_stop stop;
	struct cpu cpu = { .fpu = { .xsave = xsave } };
	size_t len = sizeof(xsave);
	uint64_t sp, altstack, mask;

	if (ptrace_seize(pid, 0) || ptrace_interrupt(pid) || ptrace_wait(pid, ptrace_now_ns() + 5000000000u, &stop) ||
	    stop.kind != PTRACE_STOP_TRAP || ptrace_get_regs(pid, &cpu.regs) || ptrace_get_xstate(pid, xsave, &len) ||
	    ptrace_get_sigmask(pid, &mask)) {
		puts("SKIP: a child cannot be traced here");
		return 77;
	}
	cpu.fpu.len_bytes = (uint32_t)len;

	uint64_t at = (uint64_t)(uintptr_t)area;
	check(sigframe_build(&cpu, mask, at + FRAME_AT, area + FRAME_AT, &sp, &altstack) > 0, "build the frame");
	check(sp % 16 == 8 && altstack > sp && altstack < sp + 64, "where the frame is");

	struct parasite_batch *b = (struct parasite_batch *)(area + BATCH_AT);
	b->nr_calls = 2;
	b->nr_done = 0;
	b->sigframe = sp;
	b->calls[0] = (struct parasite_call){ .nr = SYS_getpid };
	b->calls[1] = (struct parasite_call){ .nr = SYS_close, .args = { 9999 } };

	struct cpu_regs regs = cpu.regs;
	regs.ip = at + parasite_blob_blob_start;
	regs.di = at + BATCH_AT;
	regs.sp = at + STACK_TOP;
	regs.orig_ax = (uint64_t)-1;
	check(!ptrace_set_regs(pid, &regs) && !ptrace_set_sigmask(pid, ~(1ull << (SIGURG - 1))) && !ptrace_detach(pid, 0),
	      "let it run alone");

	shared->stop = 1;
	int status;
	waitpid(pid, &status, 0);
	check(status == 0, "the child added up correctly");
	check(b->nr_done == 2 && b->calls[0].ret == pid && b->calls[1].ret == -9, "results of the calls");
	return 0;
}

int main(void)
{
	shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	unsigned char *area = mmap(NULL, AREA_BYTES, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (shared == MAP_FAILED || area == MAP_FAILED)
		return 1;
	memcpy(area, parasite_blob, sizeof(parasite_blob));

	pid_t pid = fork();
	if (pid == 0)
		_exit(child());
	while (!shared->running)
		;
	int code = run_untraced(pid, area);
	if (code) {
		kill(pid, SIGKILL);
		return code;
	}
	puts(failures ? "FAIL" : "PASS");
	return failures != 0;
}
