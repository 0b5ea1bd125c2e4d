/* Who gets SIGIO, and which signal, for a pipe in O_ASYNC mode. */
#include <signal.h>

#include "target.h"

static volatile sig_atomic_t got;

static void handler(int sig)
{
	got = sig;
}

int main(void)
{
	int p[2];

	signal(SIGUSR2, handler);
	CHECK(!pipe(p));
	CHECK(!fcntl(p[0], F_SETOWN, getpid()) && !fcntl(p[0], F_SETSIG, SIGUSR2));
	CHECK(!fcntl(p[0], F_SETFL, O_ASYNC | O_NONBLOCK));
	target_ready();
	CHECK_EQUAL(fcntl(p[0], F_GETOWN), getpid());
	CHECK_EQUAL(fcntl(p[0], F_GETSIG), SIGUSR2);
	CHECK_EQUAL(got, 0);
	CHECK_EQUAL(write(p[1], "x", 1), 1);
	CHECK_EQUAL(got, SIGUSR2);
	return target_pass();
}
