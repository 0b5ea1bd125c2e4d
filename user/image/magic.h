/* Numbers that begin image files. Interface facts of CRIU's format, version 2 (docs/images.md). */
#ifndef BCR_IMAGE_MAGIC_H
#define BCR_IMAGE_MAGIC_H

#include <stdint.h>

static const uint32_t MAGIC_COMMON = 0x54564319;  /* in front of the type's number, but for the inventory */
static const uint32_t MAGIC_SERVICE = 0x55105940; /* the same for files that describe a run, not a process */

static const uint32_t MAGIC_INVENTORY = 0x58313116;
static const uint32_t MAGIC_PSTREE = 0x50273030;
static const uint32_t MAGIC_IDS = 0x54432030;
static const uint32_t MAGIC_CORE = 0x55053847;
static const uint32_t MAGIC_MM = 0x57492820;
static const uint32_t MAGIC_PAGEMAP = 0x56084025;
static const uint32_t MAGIC_FS = 0x51403912;
static const uint32_t MAGIC_FDINFO = 0x56213732;
static const uint32_t MAGIC_FILES = 0x56303138;
static const uint32_t MAGIC_PIPES_DATA = 0x56453709;
static const uint32_t MAGIC_FIFO_DATA = 0x59333054;
static const uint32_t MAGIC_SK_QUEUES = 0x56264026;
static const uint32_t MAGIC_SECCOMP = 0x64413049;
static const uint32_t MAGIC_TTY_INFO = 0x59453036;
static const uint32_t MAGIC_REMAP_FPATH = 0x59133954;
static const uint32_t MAGIC_GHOST_FILE = 0x52583605;
static const uint32_t MAGIC_MEMFD = 0x48453499;
static const uint32_t MAGIC_STATS = 0x57093306;

/* bcr's own files: numbers that CRIU does not use. */
static const uint32_t MAGIC_BCR_THREADS = 0x62637254;
static const uint32_t MAGIC_BCR_OBJECTS = 0x6263724f;
static const uint32_t MAGIC_BCR_MANIFEST = 0x6263724d;
static const uint32_t MAGIC_BCR_STATS = 0x62637253;

#endif
