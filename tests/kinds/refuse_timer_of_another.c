/* A POSIX timer that counts the processor time of another process: what that has used is not in the images. */
#include <signal.h>
#include <sys/syscall.h>
#include <time.h>

#include "target.h"

int main(void)
{
	struct sigevent ev = { .sigev_notify = SIGEV_NONE };
	const struct itimerspec in_an_hour = { .it_value.tv_sec = 3600 };
	char words[96];
	clockid_t clock;
	int id;

	CHECK(!clock_getcpuclockid(getppid(), &clock));
	CHECK(!syscall(SYS_timer_create, clock, &ev, &id) && !syscall(SYS_timer_settime, id, 0, &in_an_hour, NULL));
	snprintf(words, sizeof(words), "pid %d: its timer %d counts the processor time of another process", getpid(), id);
	target_expect_refusal(words);
	target_ready();
	return target_pass();
}
