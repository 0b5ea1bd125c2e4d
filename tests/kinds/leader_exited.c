/*
 * The main thread has exited while others live on: the process goes on under its number, with its memory, descriptors, working
 * directory, handlers and children, and the main thread stays dead.
 */
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "target.h"

enum { EXIT_CODE = 7, SHARED_BYTES = 1 << 16 };

static pid_t leader_tid;
static volatile sig_atomic_t handled;

static void handle(int sig)
{
	handled += sig == SIGUSR1;
}

/* Of the main thread, field `n` of its stat; 3 is its state. */
static long leader_stat(int n)
{
	char path[64], text[512];
	FILE *f;

	snprintf(path, sizeof(path), "/proc/self/task/%d/stat", leader_tid);
	f = fopen(path, "re");
	CHECK(f && fgets(text, sizeof(text), f));
	fclose(f);
	char *at = strrchr(text, ')') + 2;
	for (int i = 3; i < n; i++)
		at = strchr(at, ' ') + 1;
	return n == 3 ? *at : strtol(at, NULL, 10);
}

static void *add_one(void *arg)
{
	++*(int *)arg;
	return NULL;
}

static void *work(void *arg)
{
	int pipes[2], one = 1, status;
	char text[16] = "";
	pthread_t thread;

	(void)arg;
	/* Not joined by the C library: that hears of it before the kernel has it dead. */
	while (leader_stat(3) != 'Z')
		usleep(1000);
	char *shared = mmap(NULL, SHARED_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	CHECK(shared != MAP_FAILED);
	strcpy(shared + 5000, "shared memory");
	int file = open("file", O_RDWR | O_CREAT | O_TRUNC, 0644);
	CHECK(file == 3 && write(file, "0123456789", 10) == 10 && lseek(file, 4, SEEK_SET) == 4);
	CHECK(!pipe(pipes) && write(pipes[1], "in the pipe", 11) == 11);
	CHECK(signal(SIGUSR1, handle) == SIG_DFL);
	pid_t child = fork();
	CHECK(child >= 0);
	while (!child)
		pause();
	umask(027);
	target_ready();

	CHECK_EQUAL(getpid(), leader_tid);
	CHECK_EQUAL(leader_stat(3), 'Z');
	CHECK_EQUAL(leader_stat(52), EXIT_CODE << 8);
	CHECK(!strcmp(shared + 5000, "shared memory"));
	CHECK(read(file, text, sizeof(text)) == 6 && !strcmp(text, "456789"));
	CHECK(read(pipes[0], text, sizeof(text)) == 11 && !strcmp(text, "in the pipe"));
	CHECK_EQUAL(umask(0), 027);
	CHECK(!kill(getpid(), SIGUSR1));
	while (!handled)
		usleep(1000);
	CHECK(!pthread_create(&thread, NULL, add_one, &one) && !pthread_join(thread, NULL));
	CHECK_EQUAL(one, 2);
	CHECK(!kill(child, SIGTERM) && waitpid(child, &status, 0) == child);
	CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGTERM);
	target_pass();
	exit(0);
}

int main(void)
{
	pthread_t thread;

	leader_tid = getpid();
	CHECK(!pthread_create(&thread, NULL, work, NULL));
	syscall(SYS_exit, EXIT_CODE);
	return 1;
}
