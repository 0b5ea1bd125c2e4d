/* POSIX timers as observed, of either back end. */
#ifndef BCR_OBSERVE_TIMERS_H
#define BCR_OBSERVE_TIMERS_H

#include "model/model.h"

/*
 * Timers that notify a thread that has ended notify nobody, and nobody can be named any more when they are made again: they become
 * timers without a notification, which behave the same.
 */
void observe_timers(struct task *t, bool stopped);

#endif
