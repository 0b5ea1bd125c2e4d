/* timerfd_create(2): a timer, restored with the time that remained, and the expirations nobody has read. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/timerfd.h>
#include <time.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "kinds/common.h"
#include "observe/observe.h"
#include "sys/clocks.h"
#include "sys/fdio.h"
#include "sys/proc.h"
#include "sys/uapi.h"

static const uint64_t NSEC = 1000000000;

/* The kernel's own limit, KTIME_MAX. */
static const uint64_t MAX_NS = INT64_MAX;

static bool timerfd_match(const struct file_record *rec)
{
	return rec->sb_magic == MAGIC_ANON_INODE && !strcmp(rec->name, "[timerfd]");
}

/* "key: (1, 500)": seconds and nanoseconds. */
static int read_time(const char *text, const char *key, uint64_t *ret_ns)
{
	const char *at = proc_field(text, key);
	unsigned long long sec, nsec;

	if (!at || sscanf(at, "(%llu, %llu)", &sec, &nsec) != 2 || nsec >= NSEC || sec > MAX_NS / NSEC)
		return -EPROTO;
	*ret_ns = sec * NSEC + nsec;
	return 0;
}

static int timerfd_fdinfo(const char *text, struct observed_file *of)
{
	if (!proc_field(text, "clockid") || !proc_field(text, "ticks"))
		return -EPROTO;
	of->rec.timerfd.clockid = proc_field_u64(text, "clockid", 10, 0);
	of->rec.timerfd.ticks = proc_field_u64(text, "ticks", 10, 0);
	of->rec.timerfd.settime_flags = proc_field_u64(text, "settime flags", 8, 0);

	uint64_t value, interval;
	int err = read_time(text, "it_value", &value);
	if (!err)
		err = read_time(text, "it_interval", &interval);
	if (err)
		return err;
	of->rec.timerfd.value_ns = value;
	of->rec.timerfd.interval_ns = interval;
	of->rec.timerfd.date_ns = clocks_now_ns(of->rec.timerfd.clockid) - clocks_offset_ns(of->rec.timerfd.clockid) + value;
	return 0;
}

/*
 * fdinfo shows a periodic timer that has expired with nothing remaining, until somebody asks for its state. Ask: the
 * kernel then counts the periods that have passed, as it would have done at the target's next call.
 */
static int ask_timer(const struct observed_file *of, struct file *f)
{
	_cleanup_close_ int fd = -1;
	_cleanup_close_ int self = -1;
	_cleanup_free_ char *text = NULL;
	struct itimerspec now;
	char name[32];
	int err = common_duplicate(of, &fd);

	if (err)
		return err;
	snprintf(name, sizeof(name), "fdinfo/%d", fd);
	err = timerfd_gettime(fd, &now) ? -errno : proc_open(getpid(), &self);
	if (!err)
		err = proc_read(self, name, &text, NULL);
	if (err)
		return fail(err, "pid %u fd %d: ask the timer", of->rec.tgid, of->rec.fd);
	f->timerfd.ticks = proc_field_u64(text, "ticks", 10, f->timerfd.ticks);
	f->timerfd.value_ns = now.it_value.tv_sec * NSEC + now.it_value.tv_nsec;
	return 0;
}

/* Its date, when it was given one: by the clock as the target sees it, in the time namespace that is bcr's, too. */
static uint64_t date_of(const struct file *f, uint64_t date_ns)
{
	if (!f->timerfd.value_ns || !(f->timerfd.settime_flags & TFD_TIMER_ABSTIME))
		return 0;
	return date_ns + clocks_offset_ns(f->timerfd.clockid);
}

static int timerfd_collect(const struct collect_ctx *ctx, const struct observed_file *of, struct file *f)
{
	const struct file_record *rec = &of->rec;

	f->timerfd.clockid = rec->timerfd.clockid;
	f->timerfd.ticks = rec->timerfd.ticks;
	f->timerfd.settime_flags = rec->timerfd.settime_flags;
	f->timerfd.value_ns = rec->timerfd.value_ns;
	f->timerfd.interval_ns = rec->timerfd.interval_ns;
	f->timerfd.date_ns = date_of(f, rec->timerfd.date_ns);
	if (f->timerfd.ticks && f->timerfd.interval_ns && !f->timerfd.value_ns) {
		int err = ask_timer(of, f);
		if (err)
			return err;
		f->timerfd.date_ns = date_of(f, clocks_now_ns(f->timerfd.clockid) - clocks_offset_ns(f->timerfd.clockid) +
						f->timerfd.value_ns);
	}
	return common_collect_owner(ctx, of, f);
}

static int timerfd_save(struct save_ctx *ctx, const struct file *f, FileEntry *msg)
{
	TimerfdEntry *e = NEW_MESSAGE(ctx, TimerfdEntry, timerfd_entry__init);
	FownEntry *fown = common_save_owner(ctx, f);

	if (!e || !fown)
		return -ENOMEM;
	e->id = f->id;
	e->flags = f->flags;
	e->fown = fown;
	e->clockid = f->timerfd.clockid;
	e->ticks = f->timerfd.ticks;
	e->settime_flags = f->timerfd.settime_flags;
	e->vsec = f->timerfd.value_ns / NSEC;
	e->vnsec = f->timerfd.value_ns % NSEC;
	e->isec = f->timerfd.interval_ns / NSEC;
	e->insec = f->timerfd.interval_ns % NSEC;
	msg->tfd = e;
	return 0;
}

static bool time_is_sane(uint64_t sec, uint64_t nsec)
{
	return nsec < NSEC && sec <= MAX_NS / NSEC - 1;
}

static bool clock_is_known(uint32_t clockid)
{
	switch (clockid) {
	case CLOCK_REALTIME:
	case CLOCK_MONOTONIC:
	case CLOCK_BOOTTIME:
	case CLOCK_REALTIME_ALARM:
	case CLOCK_BOOTTIME_ALARM:
		return true;
	}
	return false;
}

static int timerfd_load(struct model *m, const FileEntry *msg, struct file *f)
{
	const TimerfdEntry *e = msg->tfd;

	if (!e || e->id != f->id)
		return fail(0, "timerfd %u: its entry is damaged", f->id);
	if (!clock_is_known(e->clockid))
		return fail(0, "timerfd %u: there is no clock %u", f->id, e->clockid);
	if (e->settime_flags & ~(TFD_TIMER_ABSTIME | TFD_TIMER_CANCEL_ON_SET))
		return fail(0, "timerfd %u: flags 0x%x are not known", f->id, e->settime_flags);
	if (!time_is_sane(e->vsec, e->vnsec) || !time_is_sane(e->isec, e->insec))
		return fail(0, "timerfd %u: its times are damaged", f->id);
	f->timerfd.clockid = e->clockid;
	f->timerfd.ticks = e->ticks;
	f->timerfd.settime_flags = e->settime_flags;
	f->timerfd.value_ns = e->vsec * NSEC + e->vnsec;
	f->timerfd.interval_ns = e->isec * NSEC + e->insec;
	return common_load("timerfd", e->flags, e->fown, f);
}

static struct timespec timespec_of(uint64_t ns)
{
	return (struct timespec){ .tv_sec = ns / NSEC, .tv_nsec = ns % NSEC };
}

/* Do dates of the dump mean the same here? The calendar's do; those of the other clocks begin with the boot. */
static bool date_holds(const struct model *m, const struct file *f)
{
	char own[CLOCKS_NAME_BYTES];

	if (!f->timerfd.date_ns)
		return false;
	if (f->timerfd.clockid == CLOCK_REALTIME || f->timerfd.clockid == CLOCK_REALTIME_ALARM)
		return true;
	clocks_name(own);
	return own[0] && !strcmp(own, m->clocks);
}

/* A date that passed while the target was away: it has expired as often as it would have. */
static void catch_up(uint64_t now, uint64_t interval, uint64_t *date, uint64_t *ticks)
{
	uint64_t missed = interval ? (now - *date) / interval + 1 : 1;

	*ticks += missed;
	*date = interval ? *date + missed * interval : 0;
}

/* A date that does not hold here is what the clock will show when the time that remained is over. */
static int set_timer(const struct model *m, const struct file *f, int fd)
{
	uint64_t value = f->timerfd.value_ns, ticks = f->timerfd.ticks;

	if (value && f->timerfd.settime_flags & TFD_TIMER_ABSTIME) {
		uint64_t now_ns = clocks_now_ns(f->timerfd.clockid);

		if (!now_ns)
			return -errno;
		if (!date_holds(m, f)) {
			value = value > MAX_NS - now_ns ? MAX_NS : value + now_ns;
		} else {
			value = f->timerfd.date_ns;
			if (value <= now_ns)
				catch_up(now_ns, f->timerfd.interval_ns, &value, &ticks);
		}
	}
	struct itimerspec its = { .it_value = timespec_of(value), .it_interval = timespec_of(f->timerfd.interval_ns) };
	if (timerfd_settime(fd, f->timerfd.settime_flags, &its, NULL))
		return -errno;
	/* The kernel does not take 0, which it begins with. */
	if (ticks && ioctl(fd, BCR_TFD_IOC_SET_TICKS, &ticks))
		return -errno;
	return 0;
}

static int timerfd_restore(const struct restore_ctx *ctx, const struct file *f, int *ret)
{
	_cleanup_close_ int fd = timerfd_create(f->timerfd.clockid, TFD_CLOEXEC);

	if (fd < 0)
		return fail(-errno, "timerfd %u: make one for clock %u", f->id, f->timerfd.clockid);
	int err = set_timer(ctx->m, f, fd);
	if (err)
		return fail(err, "timerfd %u: set it to %" PRIu64 " ns, %" PRIu64 " expirations", f->id,
			    f->timerfd.value_ns, f->timerfd.ticks);
	err = common_set_flags("timerfd", f, fd);
	if (!err)
		*ret = take_fd(&fd);
	return err;
}

static void timerfd_show(const struct model *m, const struct file *f, FILE *out)
{
	fprintf(out, "timerfd, clock %u, ", f->timerfd.clockid);
	if (f->timerfd.value_ns)
		fprintf(out, "expires in %" PRIu64 " ns", f->timerfd.value_ns);
	else
		fprintf(out, "not armed");
	if (f->timerfd.interval_ns)
		fprintf(out, ", every %" PRIu64 " ns", f->timerfd.interval_ns);
	if (f->timerfd.ticks)
		fprintf(out, ", %" PRIu64 " not read", f->timerfd.ticks);
}

const struct kind timerfd_kind = {
	.name = "timerfd",
	.type = FILE_TIMERFD,
	.match = timerfd_match,
	.fdinfo = timerfd_fdinfo,
	.collect = timerfd_collect,
	.asks = true,
	.save = timerfd_save,
	.load = timerfd_load,
	.restore = timerfd_restore,
	.connect = common_connect,
	.show = timerfd_show,
};
