/* Figures of a dump or a restore ↔ stats-dump, stats-dump.bcr and stats-restore in the work directory. */
#include "images/bcr-stats.pb-c.h"
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

static int stats_write(int dirfd, const char *name, uint32_t magic, const ProtobufCMessage *msg)
{
	size_t len = protobuf_c_message_get_packed_size(msg);
	_cleanup_free_ uint8_t *buf = malloc(12 + len);
	char tmp[IMAGE_NAME_MAX];
	uint32_t head[3] = { MAGIC_SERVICE, magic, len };

	if (!buf)
		return fail(-ENOMEM, "%s: write", name);
	memcpy(buf, head, sizeof(head));
	protobuf_c_message_pack(msg, buf + sizeof(head));
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

/* "": absent. */
static char *text_or_null(const char *s)
{
	return *s ? (char *)s : NULL;
}

static int write_own(int dirfd, const struct dump_stats *s)
{
	BcrStageEntry stages[STATS_MAX_STAGES], *list[STATS_MAX_STAGES];
	BcrStatsEntry msg = BCR_STATS_ENTRY__INIT;

	for (uint32_t i = 0; i < s->nr_stages; i++) {
		list[i] = &stages[i];
		bcr_stage_entry__init(list[i]);
		list[i]->name = (char *)s->stages[i].name;
		list[i]->time_us = s->stages[i].us;
	}
	msg.n_stages = s->nr_stages;
	msg.stages = list;
	msg.has_pages_saved = msg.has_pages_copied_in_stop = msg.has_pages_torn = true;
	msg.has_cuts_made_again = msg.has_stops_made_again = true;
	msg.pages_saved = s->pages_saved;
	msg.pages_copied_in_stop = s->pages_copied_in_stop;
	msg.pages_torn = s->pages_torn;
	msg.cuts_made_again = s->retakes;
	msg.stops_made_again = s->restops;
	msg.has_rounds = msg.has_pages_copied_ahead = true;
	msg.rounds = s->rounds;
	msg.pages_copied_ahead = s->pages_copied_ahead;
	msg.observe = text_or_null(s->observe);
	msg.freezer = text_or_null(s->freezer);
	msg.track = text_or_null(s->track);
	return stats_write(dirfd, "stats-dump.bcr", MAGIC_BCR_STATS, &msg.base);
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
	dump.shpages_skipped_parent = s->shpages_skipped_parent;
	dump.has_shpages_written = true;
	dump.shpages_written = s->shpages_written;
	msg.dump = &dump;

	/* The names are CRIU's: without the .img of older versions. */
	int err = stats_write(dirfd, "stats-dump", MAGIC_STATS, &msg.base);
	return err ? err : write_own(dirfd, s);
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
	return stats_write(dirfd, "stats-restore", MAGIC_STATS, &msg.base);
}

static void copy_text(char *to, size_t len, const char *from)
{
	snprintf(to, len, "%s", from ? from : "");
}

/* Sets of CRIU have none. */
static int read_own(const struct image_source *src, struct dump_stats *s)
{
	_cleanup_reader_ struct image_reader r = {};
	_cleanup_message_ BcrStatsEntry *msg = NULL;
	int err = reader_open(&r, src, MAGIC_SERVICE, MAGIC_BCR_STATS, "stats-dump.bcr");

	if (!err)
		err = reader_single(&r, &bcr_stats_entry__descriptor, &msg);
	if (err)
		return err == -ENOENT ? 0 : err;
	if (msg->n_stages > STATS_MAX_STAGES)
		return bad_image(&r, "names %zu stages", msg->n_stages);
	for (; s->nr_stages < msg->n_stages; s->nr_stages++) {
		struct stage_time *stage = &s->stages[s->nr_stages];

		copy_text(stage->name, sizeof(stage->name), msg->stages[s->nr_stages]->name);
		stage->us = msg->stages[s->nr_stages]->time_us;
	}
	s->pages_saved = msg->pages_saved;
	s->pages_copied_in_stop = msg->pages_copied_in_stop;
	s->pages_torn = msg->pages_torn;
	s->retakes = msg->cuts_made_again;
	s->restops = msg->stops_made_again;
	s->rounds = msg->rounds;
	s->pages_copied_ahead = msg->pages_copied_ahead;
	copy_text(s->observe, sizeof(s->observe), msg->observe);
	copy_text(s->freezer, sizeof(s->freezer), msg->freezer);
	copy_text(s->track, sizeof(s->track), msg->track);
	return 0;
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
		.shpages_skipped_parent = msg->dump->shpages_skipped_parent,
		.shpages_written = msg->dump->shpages_written,
	};
	return read_own(&src, ret);
}
