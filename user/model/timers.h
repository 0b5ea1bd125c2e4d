/* POSIX timers and the signals they have sent. */
#ifndef BCR_MODEL_TIMERS_H
#define BCR_MODEL_TIMERS_H

#include "model/model.h"

/* The timer of the task that this signal came from; NULL when it came from none that is still there. */
const struct posix_timer *timer_of_signal(const struct task *t, const struct siginfo_raw *info);

/* Is a signal of the timer pending, for the process or for one of its threads? */
bool timer_is_pending(const struct task *t, const struct posix_timer *timer);

/* Does it count processor time? */
bool timer_counts_cpu(const struct posix_timer *timer);

/*
 * Clocks of processor time have the task in their number, 0 for whoever asks (which is how the kernel notes
 * CLOCK_THREAD_CPUTIME_ID). Is it a clock of the thread that asked?
 */
bool clock_is_of_thread_itself(int32_t clockid);

/* The same clock as seen by others: that of thread `tid`. */
int32_t clock_of_thread(int32_t clockid, pid_t tid);

#endif
