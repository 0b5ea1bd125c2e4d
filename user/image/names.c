/* Names of image files. */
#include "image/names.h"

#include <ctype.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "image/io.h"

/* Exactly these. */
static const char *const plain[] = {
	"inventory.img",   "pstree.img",      "files.img",       "cgroup.img",       "seccomp.img",
	"pipes-data.img",  "fifo-data.img",   "sk-queues.img",   "remap-fpath.img",  "memfd.img",
	"filelocks.img",   "tty-info.img",    "tty-data.img",    "eventpoll-tfd.img", "inotify-wd.img",
	"fanotify-mark.img", "bpfmap-file.img", "bpfmap-data.img", "pidfd.img",      "cpuinfo.img",
	"apparmor.img",    "binfmt-misc.img", "bcr-objects.bcr", "bcr-manifest.bcr", IMAGE_PARENT,
	/* Written by old versions of CRIU, one kind per file. */
	"reg-files.img",   "ns-files.img",    "eventfd.img",     "eventpoll.img",    "signalfd.img",
	"inotify.img",     "fanotify.img",    "unixsk.img",      "inetsk.img",       "packetsk.img",
	"netlinksk.img",   "pipes.img",       "fifo.img",        "tty.img",          "tunfile.img",
	"ext-files.img",   "timerfd.img",     "mountpoints.img",
};

/* These, followed by a number in decimal or hexadecimal and ".img" (or ".tar.gz.img", ".tar.gz", ".bcr"). */
static const char *const numbered[] = {
	"core-",    "ids-",       "mm-",           "fs-",         "pagemap-",  "pagemap-shmem-",
	"pages-",   "fdinfo-",    "signal-s-",     "signal-p-",   "timens-",   "utsns-",
	"ipcns-var-", "ipcns-shm-", "ipcns-msg-",  "ipcns-sem-",  "mountpoints-", "netns-",
	"netdev-",  "ifaddr-",    "route-",        "route6-",     "rule-",     "iptables-",
	"ip6tables-", "nftables-", "netns-ct-",    "netns-exp-",  "userns-",   "pidns-",
	"tcp-stream-", "ghost-file-", "autofs-",   "tmpfs-",      "tmpfs-dev-", "bcr-threads-",
	"itimers-", "posix-timers-", "creds-",     "rlimit-",     "sigacts-",  "seccomp-",
};

static bool is_number_and_end(const char *s)
{
	size_t nr = 0;

	while (isxdigit((unsigned char)s[nr]))
		nr++;
	if (!nr)
		return false;
	s += nr;
	return !strcmp(s, ".img") || !strcmp(s, ".tar.gz.img") || !strcmp(s, ".tar.gz") || !strcmp(s, ".bcr");
}

bool image_name_known(const char *name)
{
	for (size_t i = 0; i < sizeof(plain) / sizeof(plain[0]); i++) {
		if (!strcmp(name, plain[i]))
			return true;
	}
	for (size_t i = 0; i < sizeof(numbered) / sizeof(numbered[0]); i++) {
		size_t len = strlen(numbered[i]);

		if (!strncmp(name, numbered[i], len) && is_number_and_end(name + len))
			return true;
	}
	return false;
}

const char *image_name_pagemap(char *buf, pid_t pid)
{
	snprintf(buf, IMAGE_NAME_MAX, "pagemap-%d.img", pid);
	return buf;
}

const char *image_name_pagemap_shmem(char *buf, uint32_t shmem_id)
{
	snprintf(buf, IMAGE_NAME_MAX, "pagemap-shmem-%u.img", shmem_id);
	return buf;
}
