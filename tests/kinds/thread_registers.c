/*
 * 64 threads, each with values of its own in every register file that the processor has (general, x87, SSE, AVX, AVX-512,
 * protection keys), thread-local storage, fs and gs base, signal mask, alternate stack, name, robust list, rseq and rounding
 * mode. Every eighth spins in user mode when it is dumped, the others wait in a system call; the registers are filled
 * before and stored after by one piece of assembly, and compared bit by bit.
 */
#include <asm/prctl.h>
#include <cpuid.h>
#include <fenv.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include "target.h"

enum { NR_THREADS = 64, NR_ZMM = 32, NR_K = 8, NR_X87 = 6, NR_GENERAL = 8 };

enum level { SSE, AVX, AVX512 };

struct registers {
	uint64_t zmm[NR_ZMM][8];
	uint64_t k[NR_K];
	uint8_t x87[NR_X87][16]; /* 10 bytes each */
	uint64_t general[NR_GENERAL]; /* rbx rbp r8 r9 r10 r12 r13 r14 */
};

struct thread {
	pthread_t thread;
	int number;
	int pipe[2];
	volatile uint64_t loops;
	struct registers before, after;
	uint8_t stack[16384]; /* alternate signal stack */
};

static struct thread *threads;
static volatile uint32_t go;
static enum level level;
static int has_keys; /* protection keys */
static pthread_mutex_t robust[NR_THREADS];

/*
 * Fills the registers from `before`, waits, stores them to `after`. `where` is a counter to count up until *go, or, when
 * fd is not negative, where read(fd) puts a byte.
 */
void hold_registers(const struct registers *before, struct registers *after, volatile void *where, int fd,
		    enum level level, volatile uint32_t *go);

#define EACH_16(op) \
	op(0) op(1) op(2) op(3) op(4) op(5) op(6) op(7) op(8) op(9) op(10) op(11) op(12) op(13) op(14) op(15)
#define EACH_HIGH(op) \
	op(16) op(17) op(18) op(19) op(20) op(21) op(22) op(23) op(24) op(25) op(26) op(27) op(28) op(29) op(30) op(31)
#define EACH_K(op) op(0) op(1) op(2) op(3) op(4) op(5) op(6) op(7)
#define LOAD_X(n) "movdqu " #n "*64(%rdi), %xmm" #n "\n"
#define SAVE_X(n) "movdqu %xmm" #n ", " #n "*64(%rsi)\n"
#define LOAD_Y(n) "vmovdqu " #n "*64(%rdi), %ymm" #n "\n"
#define SAVE_Y(n) "vmovdqu %ymm" #n ", " #n "*64(%rsi)\n"
#define LOAD_Z(n) "vmovdqu64 " #n "*64(%rdi), %zmm" #n "\n"
#define SAVE_Z(n) "vmovdqu64 %zmm" #n ", " #n "*64(%rsi)\n"
#define LOAD_K(n) "kmovq 2048+" #n "*8(%rdi), %k" #n "\n"
#define SAVE_K(n) "kmovq %k" #n ", 2048+" #n "*8(%rsi)\n"
#define LOAD_F(n) "fldt 2112+" #n "*16(%rdi)\n"
#define SAVE_F(n) "fstpt 2112+" #n "*16(%rsi)\n"

_Static_assert(offsetof(struct registers, k) == 2048 && offsetof(struct registers, x87) == 2112 &&
	       offsetof(struct registers, general) == 2208, "the assembly knows these");

asm(".text\n"
    ".globl hold_registers\n"
    ".type hold_registers, @function\n"
    "hold_registers:\n"
    "push %rbx\n" "push %rbp\n" "push %r12\n" "push %r13\n" "push %r14\n" "push %r15\n"
    "push %rsi\n"                      /* 16(%rsp): after */
    "push %r8\n"                       /* 8(%rsp): level */
    "push %r9\n"                       /* 0(%rsp): go */
    LOAD_F(0) LOAD_F(1) LOAD_F(2) LOAD_F(3) LOAD_F(4) LOAD_F(5)
    "cmp $1, %r8d\n" "jb 1f\n" "je 2f\n"
    EACH_16(LOAD_Z) EACH_HIGH(LOAD_Z) EACH_K(LOAD_K)
    "jmp 3f\n"
    "1:" EACH_16(LOAD_X) "jmp 3f\n"
    "2:" EACH_16(LOAD_Y)
    "3:\n"
    "mov %r9, %r15\n"                  /* go, and rdx is where, for the loop */
    "mov 2208(%rdi), %rbx\n" "mov 2216(%rdi), %rbp\n" "mov 2224(%rdi), %r8\n" "mov 2232(%rdi), %r9\n"
    "mov 2240(%rdi), %r10\n" "mov 2248(%rdi), %r12\n" "mov 2256(%rdi), %r13\n" "mov 2264(%rdi), %r14\n"
    "test %ecx, %ecx\n" "jns 5f\n"
    "4: incq (%rdx)\n" "pause\n" "cmpl $0, (%r15)\n" "je 4b\n"
    "jmp 6f\n"
    "5: mov %ecx, %edi\n" "mov %rdx, %rsi\n" "mov $1, %edx\n" "xor %eax, %eax\n" "syscall\n"
    "cmp $1, %rax\n" "je 6f\n" "ud2\n"
    "6: mov 16(%rsp), %rsi\n"
    "mov %rbx, 2208(%rsi)\n" "mov %rbp, 2216(%rsi)\n" "mov %r8, 2224(%rsi)\n" "mov %r9, 2232(%rsi)\n"
    "mov %r10, 2240(%rsi)\n" "mov %r12, 2248(%rsi)\n" "mov %r13, 2256(%rsi)\n" "mov %r14, 2264(%rsi)\n"
    "mov 8(%rsp), %r8\n"
    "cmp $1, %r8d\n" "jb 1f\n" "je 2f\n"
    EACH_16(SAVE_Z) EACH_HIGH(SAVE_Z) EACH_K(SAVE_K)
    "vzeroupper\n"
    "jmp 3f\n"
    "1:" EACH_16(SAVE_X) "jmp 3f\n"
    "2:" EACH_16(SAVE_Y) "vzeroupper\n"
    "3:\n"
    SAVE_F(5) SAVE_F(4) SAVE_F(3) SAVE_F(2) SAVE_F(1) SAVE_F(0)
    "add $24, %rsp\n"
    "pop %r15\n" "pop %r14\n" "pop %r13\n" "pop %r12\n" "pop %rbp\n" "pop %rbx\n"
    "ret\n"
    ".size hold_registers, .-hold_registers\n");

static int spins(int thread)
{
	return thread % 8 == 0;
}

static uint64_t value(int thread, int which)
{
	uint64_t x = (thread + 1) * 0x9e3779b97f4a7c15 ^ which * 0xd6e8feb86659fd93;

	return x ^ x >> 32;
}

static void choose_registers(struct thread *t)
{
	struct registers *r = &t->before;
	/* What the processor does not have stays zero on both sides. */
	int width = level == AVX512 ? 8 : level == AVX ? 4 : 2;

	for (int i = 0; i < (level == AVX512 ? NR_ZMM : 16); i++)
		for (int k = 0; k < width; k++)
			r->zmm[i][k] = value(t->number, i * 8 + k);
	for (int i = 0; i < NR_K && level == AVX512; i++)
		r->k[i] = value(t->number, 1000 + i);
	for (int i = 0; i < NR_X87; i++) {
		long double x = (long double)value(t->number, 2000 + i) / 3;

		memcpy(r->x87[i], &x, 10);
	}
	for (int i = 0; i < NR_GENERAL; i++)
		r->general[i] = value(t->number, 3000 + i);
}

static void check_registers(const struct thread *t)
{
	const uint8_t *a = (const void *)&t->before, *b = (const void *)&t->after;

	for (size_t i = 0; i < sizeof(t->before); i++)
		if (a[i] != b[i])
			TARGET_FAIL("thread %d: byte %zu of its registers is %#x, was %#x", t->number, i, b[i], a[i]);
}

/* Rights of the 15 keys that no memory has; key 0 is that of all memory. */
static uint32_t key_rights(int n)
{
	return (uint32_t)value(n, 7000) & ~3u;
}

static uint32_t read_keys(void)
{
	uint32_t a, d;

	__asm__ volatile("rdpkru" : "=a"(a), "=d"(d) : "c"(0));
	return a;
}

static void write_keys(uint32_t rights)
{
	__asm__ volatile("wrpkru" : : "a"(rights), "c"(0), "d"(0));
}

static uint32_t read_mxcsr(void)
{
	uint32_t mxcsr;

	__asm__ volatile("stmxcsr %0" : "=m"(mxcsr));
	return mxcsr;
}

static uint16_t read_control_word(void)
{
	uint16_t word;

	__asm__ volatile("fnstcw %0" : "=m"(word));
	return word;
}

static const int roundings[] = { FE_TONEAREST, FE_DOWNWARD, FE_UPWARD, FE_TOWARDZERO };
static __thread uint64_t tls[32];
static __thread int tls_number = -1;

/* The robust list lives in the thread's own memory: set by libc, and by nobody else. */
static void *robust_head(void)
{
	void *head = NULL;
	size_t len = 0;

	CHECK(!syscall(SYS_get_robust_list, 0, &head, &len));
	CHECK_EQUAL(len, 24);
	return head;
}

extern const ptrdiff_t __rseq_offset;
extern const unsigned int __rseq_size;

static void check_rseq(void)
{
	uint32_t *area = (uint32_t *)((char *)__builtin_thread_pointer() + __rseq_offset);

	if (!__rseq_size)
		return;
	/* cpu_id_start and cpu_id: -1 and -2 mean that the kernel does not know the area. */
	CHECK(area[1] < 4096);
	/* EBUSY: that very area; EINVAL: with another length than we think. */
	CHECK(syscall(SYS_rseq, area, 32, 0, 0x53053053) < 0 && (errno == EBUSY || errno == EINVAL));
}

static unsigned long base(int code)
{
	unsigned long at;

	CHECK(!syscall(SYS_arch_prctl, code, &at));
	return at;
}

static void *run(void *arg)
{
	struct thread *t = arg;
	int n = t->number;
	stack_t stack = { .ss_sp = t->stack, .ss_size = sizeof(t->stack) }, stack_after;
	unsigned long gs = value(n, 6000) >> 20, fs = base(ARCH_GET_FS);
	sigset_t mask, mask_after;
	char name[16], name_after[16];

	tls_number = n;
	for (int i = 0; i < 32; i++)
		tls[i] = value(n, 4000 + i);
	CHECK(!sigaltstack(&stack, NULL));
	sigemptyset(&mask);
	for (int i = 1; i < 30; i++) {
		if (value(n, 5000 + i) & 1)
			sigaddset(&mask, SIGRTMIN + i);
	}
	pthread_sigmask(SIG_SETMASK, &mask, NULL);
	snprintf(name, sizeof(name), "t%d (odd) name", n);
	prctl(PR_SET_NAME, name);
	CHECK(!syscall(SYS_arch_prctl, ARCH_SET_GS, gs));
	fesetround(roundings[n % 4]);
	void *head = robust_head();
	pthread_mutex_lock(&robust[n]);
	choose_registers(t);
	uint32_t mxcsr = read_mxcsr();
	uint16_t control = read_control_word();
	if (has_keys)
		write_keys(key_rights(n));

	char byte;
	if (!spins(n))
		hold_registers(&t->before, &t->after, &byte, t->pipe[0], level, &go);
	else
		hold_registers(&t->before, &t->after, &t->loops, -1, level, &go);

	uint32_t keys = has_keys ? read_keys() : 0;
	check_registers(t);
	if (has_keys)
		CHECK_EQUAL(keys, key_rights(n));
	CHECK_EQUAL(read_mxcsr(), mxcsr);
	CHECK_EQUAL(read_control_word(), control);
	CHECK_EQUAL(tls_number, n);
	for (int i = 0; i < 32; i++)
		CHECK(tls[i] == value(n, 4000 + i));
	sigaltstack(NULL, &stack_after);
	CHECK(stack_after.ss_sp == stack.ss_sp && stack_after.ss_size == stack.ss_size && !stack_after.ss_flags);
	pthread_sigmask(SIG_SETMASK, NULL, &mask_after);
	for (int i = 1; i < 65; i++)
		CHECK_EQUAL(sigismember(&mask_after, i), sigismember(&mask, i));
	prctl(PR_GET_NAME, name_after);
	CHECK(!strcmp(name, name_after));
	CHECK(base(ARCH_GET_GS) == gs && base(ARCH_GET_FS) == fs);
	CHECK_EQUAL(fegetround(), roundings[n % 4]);
	CHECK(robust_head() == head);
	check_rseq();
	/* Ends with its mutex locked: the kernel finds it in the robust list. */
	return NULL;
}

static void nap(void)
{
	nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
}

int main(void)
{
	pthread_mutexattr_t attr;
	unsigned a, b, c, d;

	__builtin_cpu_init();
	level = __builtin_cpu_supports("avx512bw") ? AVX512 : __builtin_cpu_supports("avx") ? AVX : SSE;
	has_keys = __get_cpuid_count(7, 0, &a, &b, &c, &d) && c & 1 << 4; /* the kernel uses them, OSPKE */
	printf("vector registers of level %d, %s protection keys\n", level, has_keys ? "with" : "without");
	threads = mmap(NULL, NR_THREADS * sizeof(*threads), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	CHECK(threads != MAP_FAILED);
	pthread_mutexattr_init(&attr);
	pthread_mutexattr_setrobust(&attr, PTHREAD_MUTEX_ROBUST);

	for (int i = 0; i < NR_THREADS; i++) {
		threads[i].number = i;
		CHECK(!pipe(threads[i].pipe));
		pthread_mutex_init(&robust[i], &attr);
		CHECK(!pthread_create(&threads[i].thread, NULL, run, &threads[i]));
	}
	/* Those that spin do so; the others have their mutex, right before their read. */
	for (int i = 0; i < NR_THREADS; i++) {
		while (spins(i) ? !threads[i].loops : !robust[i].__data.__lock)
			nap();
	}
	target_ready();

	uint64_t loops[NR_THREADS];
	for (int i = 0; i < NR_THREADS; i++)
		loops[i] = threads[i].loops;
	for (int i = 0; i < NR_THREADS; i++) {
		while (spins(i) && threads[i].loops == loops[i]) /* each still runs */
			nap();
	}
	go = 1;
	for (int i = 0; i < NR_THREADS; i++)
		if (!spins(i))
			CHECK_EQUAL(write(threads[i].pipe[1], "", 1), 1);
	for (int i = 0; i < NR_THREADS; i++) {
		pthread_join(threads[i].thread, NULL);
		CHECK_EQUAL(pthread_mutex_lock(&robust[i]), EOWNERDEAD);
	}
	return target_pass();
}
