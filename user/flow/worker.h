/* Runs a dump in a process of its own, which outlives a killed bcr long enough to put the target right. */
#ifndef BCR_FLOW_WORKER_H
#define BCR_FLOW_WORKER_H

#include <stdbool.h>

/*
 * Forks a worker that calls run(arg) and waits for it; returns what run returned (a negative errno or 0), or -EIO
 * with a reported failure when the worker itself was killed. SIGINT, SIGTERM, SIGHUP and SIGQUIT to bcr ask the
 * worker to give up.
 */
int worker_run(int (*run)(void *arg), void *arg);

/*
 * In the worker: has bcr been told to stop, or died? After worker_run(): was it told to, even if too late for the
 * worker to heed it?
 */
bool worker_should_stop(void);

#endif
