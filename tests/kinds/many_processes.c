/*
 * 500 processes, the children of one: they answer when they are asked, and each ends with a status of its own.
 */
#include <stdint.h>
#include <sys/wait.h>

#include "target.h"

enum { NR = 499 };

struct answer {
	uint32_t number;
	pid_t pid, parent;
};

/* Answers each request that comes with what it is; ends when they end. */
static void child(int from, int to, uint32_t number)
{
	struct answer a = { .number = number };
	char request;

	while (read(from, &request, 1) == 1) {
		a.pid = getpid();
		a.parent = getppid();
		CHECK_EQUAL(write(to, &a, sizeof(a)), sizeof(a));
	}
	_exit(number % 100);
}

int main(void)
{
	int ask[2], answers[2], status;
	pid_t pids[NR];

	CHECK(!pipe(ask) && !pipe(answers));
	for (uint32_t i = 0; i < NR; i++) {
		pids[i] = fork();
		CHECK(pids[i] >= 0);
		if (!pids[i]) {
			close(ask[1]);
			close(answers[0]);
			child(ask[0], answers[1], i);
		}
	}
	close(ask[0]);
	close(answers[1]);
	target_ready();
	/* Whoever is first answers: of the requests none is lost, and everybody is who it was. */
	for (uint32_t i = 0; i < NR; i++) {
		struct answer a;

		CHECK_EQUAL(write(ask[1], "?", 1), 1);
		CHECK_EQUAL(read(answers[0], &a, sizeof(a)), sizeof(a));
		CHECK(a.number < NR);
		CHECK_EQUAL(a.pid, pids[a.number]);
		CHECK_EQUAL(a.parent, getpid());
	}
	close(ask[1]);
	for (uint32_t i = 0; i < NR; i++) {
		CHECK_EQUAL(waitpid(pids[i], &status, 0), pids[i]);
		CHECK(WIFEXITED(status));
		CHECK_EQUAL(WEXITSTATUS(status), i % 100);
	}
	return target_pass();
}
