/* 500 processes, the children of one: each answers when it is asked, with what only it knows, and ends with a status of its own. */
#include <stdint.h>
#include <sys/wait.h>

#include "target.h"

enum { NR = 499 };

/* Answers each request that comes with `value`; ends when they end. */
static void child(int from, int to, uint32_t value)
{
	char request;

	while (read(from, &request, 1) == 1)
		CHECK_EQUAL(write(to, &value, sizeof(value)), sizeof(value));
	_exit(value % 100);
}

int main(void)
{
	int ask[2], answers[2], status;
	pid_t pids[NR];
	uint64_t sum = 0;

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
	/* Whoever is first answers: of the requests none is lost. */
	for (uint32_t i = 0; i < NR; i++) {
		uint32_t value;

		CHECK_EQUAL(write(ask[1], "?", 1), 1);
		CHECK_EQUAL(read(answers[0], &value, sizeof(value)), sizeof(value));
		CHECK(value < NR);
		sum++;
	}
	CHECK_EQUAL(sum, NR);
	close(ask[1]);
	for (uint32_t i = 0; i < NR; i++) {
		CHECK_EQUAL(waitpid(pids[i], &status, 0), pids[i]);
		CHECK(WIFEXITED(status));
		CHECK_EQUAL(WEXITSTATUS(status), i % 100);
	}
	return target_pass();
}
