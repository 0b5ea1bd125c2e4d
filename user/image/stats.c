/* Figures of a dump or a restore ↔ stats-dump, stats-restore in the work directory. */
#include "images/stats.pb-c.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "image/image.h"
#include "image/io.h"
#include "image/magic.h"

static int write_all(int fd, const void *buf, size_t len)
{
	const uint8_t *p = buf;

	while (len) {
		ssize_t n = write(fd, p, len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		p += n;
		len -= n;
	}
	return 0;
}

/* The name is CRIU's: without the .img of older versions. */
static int stats_write(int dirfd, const char *name, const StatsEntry *msg)
{
	size_t len = stats_entry__get_packed_size(msg);
	_cleanup_free_ uint8_t *buf = malloc(12 + len);
	char tmp[IMAGE_NAME_MAX];
	uint32_t head[3] = { MAGIC_SERVICE, MAGIC_STATS, len };

	if (!buf)
		return fail(-ENOMEM, "%s: write", name);
	memcpy(buf, head, sizeof(head));
	stats_entry__pack(msg, buf + sizeof(head));
	snprintf(tmp, sizeof(tmp), ".%s.tmp", name);

	_cleanup_close_ int fd = openat(dirfd, tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);

	if (fd < 0)
		return fail(-errno, "%s: create", name);

	int err = write_all(fd, buf, sizeof(head) + len);

	if (!err && renameat(dirfd, tmp, dirfd, name))
		err = -errno;
	if (!err)
		return 0;
	unlinkat(dirfd, tmp, 0);
	return fail(err, "%s: write", name);
}

int stats_write_dump(int dirfd, const struct dump_stats *s)
{
	DumpStatsEntry dump = DUMP_STATS_ENTRY__INIT;
	StatsEntry msg = STATS_ENTRY__INIT;

	dump.freezing_time = s->freezing_us;
	dump.frozen_time = s->frozen_us;
	dump.memdump_time = s->memdump_us;
	dump.memwrite_time = s->memwrite_us;
	dump.pages_scanned = s->pages_scanned;
	dump.pages_skipped_parent = s->pages_skipped_parent;
	dump.pages_written = s->pages_written;
	dump.has_irmap_resolve = true;
	dump.has_shpages_scanned = true;
	dump.shpages_scanned = s->shpages_scanned;
	dump.has_shpages_skipped_parent = true;
	dump.has_shpages_written = true;
	dump.shpages_written = s->shpages_written;
	msg.dump = &dump;
	return stats_write(dirfd, "stats-dump", &msg);
}

int stats_write_restore(int dirfd, const struct restore_stats *s)
{
	RestoreStatsEntry restore = RESTORE_STATS_ENTRY__INIT;
	StatsEntry msg = STATS_ENTRY__INIT;

	restore.pages_compared = s->pages_compared;
	restore.pages_skipped_cow = s->pages_skipped_cow;
	restore.forking_time = s->forking_us;
	restore.restore_time = s->restore_us;
	restore.has_pages_restored = true;
	restore.pages_restored = s->pages_restored;
	msg.restore = &restore;
	return stats_write(dirfd, "stats-restore", &msg);
}

int stats_read_dump(int dirfd, struct dump_stats *ret)
{
	struct image_source src = image_source_dir(dirfd, ".");
	_cleanup_reader_ struct image_reader r = {};
	_cleanup_message_ StatsEntry *msg = NULL;
	int err = reader_open(&r, &src, MAGIC_SERVICE, MAGIC_STATS, "stats-dump");

	if (!err)
		err = reader_single(&r, &stats_entry__descriptor, &msg);
	if (err)
		return err;
	if (!msg->dump)
		return bad_image(&r, "has no figures of a dump");
	*ret = (struct dump_stats){
		.freezing_us = msg->dump->freezing_time,
		.frozen_us = msg->dump->frozen_time,
		.memdump_us = msg->dump->memdump_time,
		.memwrite_us = msg->dump->memwrite_time,
		.pages_scanned = msg->dump->pages_scanned,
		.pages_skipped_parent = msg->dump->pages_skipped_parent,
		.pages_written = msg->dump->pages_written,
		.shpages_scanned = msg->dump->shpages_scanned,
		.shpages_written = msg->dump->shpages_written,
	};
	return 0;
}
