/*
 * dirty DIR MIB HOT_PAGES NAP_US: memory of MIB MiB, of which a thread writes the first HOT_PAGES pages at
 * random, with a nap after every 64, and another one maps, fills, checks and unmaps all the time, and a third
 * one reads a file into memory directly, when HOT_PAGES is not 0; a part is shared memory. Each page says twice
 * how often it was written, and holds a pattern of its own: a page of another moment, or of another place, is
 * found.
 */
#include <pthread.h>
#include <sys/mman.h>

#include "self.h"

enum { PAGE = 4096, WORDS = PAGE / 8, NR_MAPS = 32, MAX_MAP_PAGES = 24, SHARED_PAGES = 64,
       DIRECT_PAGES = 512, NR_BLOCKS = 256, READ_PAGES = 16 };

static volatile bool stop;
static uint64_t *area, *shared, *direct;
static uint32_t blocks[DIRECT_PAGES]; /* what was read into each page */
static int direct_fd = -1;
static uint32_t *counts, shared_counts[SHARED_PAGES];
static size_t nr_pages, nr_hot;
static long nap_ns;

static uint64_t next_random(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

static uint64_t pattern(const uint64_t *page, size_t word)
{
	return ((uintptr_t)page >> 12) * 0x9e3779b97f4a7c15 + word * 0x100000001b3;
}

static void fill_page(uint64_t *page)
{
	for (size_t i = 1; i < WORDS - 1; i++)
		page[i] = pattern(page, i);
}

static void write_page(const char *what, uint64_t *page, uint32_t *count)
{
	volatile uint64_t *p = page;

	CHECK(p[0] == *count && p[WORDS - 1] == *count, "%s page %p says %llu and %llu, it was written %u times", what,
	      (void *)page, (unsigned long long)p[0], (unsigned long long)p[WORDS - 1], *count);
	p[0] = p[WORDS - 1] = ++*count;
}

static void check_page(const char *what, uint64_t *page, uint32_t count)
{
	CHECK(page[0] == count && page[WORDS - 1] == count, "%s page %p says %llu and %llu, it was written %u times", what,
	      (void *)page, (unsigned long long)page[0], (unsigned long long)page[WORDS - 1], count);
	for (size_t i = 1; i < WORDS - 1; i++)
		CHECK(page[i] == pattern(page, i), "%s page %p, word %zu holds %llx", what, (void *)page, i,
		      (unsigned long long)page[i]);
}

static void *write_pages(void *arg)
{
	uint64_t random = 88172645463325252;

	for (unsigned n = 0; !stop; n++) {
		size_t i = next_random(&random) % nr_hot, s = random >> 40;

		write_page("private", area + i * WORDS, &counts[i]);
		if (!(n & 15))
			write_page("shared", shared + s % SHARED_PAGES * WORDS, &shared_counts[s % SHARED_PAGES]);
		if (nap_ns && !(n & 63))
			self_nap(nap_ns);
	}
	return arg;
}

/* Addresses are used again and again, by other contents. */
static void *map_and_unmap(void *arg)
{
	struct {
		uint64_t *at;
		size_t pages;
	} maps[NR_MAPS] = {};
	uint64_t random = 0x2545f4914f6cdd1d;

	while (!stop) {
		size_t i = next_random(&random) % NR_MAPS;

		for (size_t k = 0; k < maps[i].pages; k++)
			check_page("mapped", maps[i].at + k * WORDS, 0);
		if (maps[i].pages)
			NEED(!munmap(maps[i].at, maps[i].pages * PAGE));
		maps[i].pages = 1 + next_random(&random) % MAX_MAP_PAGES;
		maps[i].at = mmap(NULL, maps[i].pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		NEED(maps[i].at != MAP_FAILED);
		for (size_t k = 0; k < maps[i].pages; k++)
			fill_page(maps[i].at + k * WORDS);
		self_nap(1000000);
	}
	return arg;
}

static void check_block(size_t i)
{
	for (size_t k = 0; k < WORDS; k++)
		CHECK(direct[i * WORDS + k] == blocks[i] * 0x100000001b3 + k, "page %zu read directly holds %llx, not block %u", i,
		      (unsigned long long)direct[i * WORDS + k], blocks[i]);
}

/* The device writes, not a thread: nothing faults while it does. */
static void *read_directly(void *arg)
{
	uint64_t random = 0xda942042e4dd58b5;

	while (!stop) {
		size_t i = next_random(&random) % (DIRECT_PAGES - READ_PAGES), b = next_random(&random) % (NR_BLOCKS - READ_PAGES);

		check_block(i);
		NEED(pread(direct_fd, direct + i * WORDS, READ_PAGES * PAGE, b * PAGE) == READ_PAGES * PAGE);
		for (size_t k = 0; k < READ_PAGES; k++)
			blocks[i + k] = b + k;
	}
	return arg;
}

/* Some file systems do not read directly: then nothing is. */
static void make_blocks(void)
{
	int fd = open("blocks", O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	NEED(fd >= 0);
	for (uint64_t b = 0; b < NR_BLOCKS; b++) {
		uint64_t page[WORDS];

		for (size_t k = 0; k < WORDS; k++)
			page[k] = b * 0x100000001b3 + k;
		NEED(write(fd, page, PAGE) == PAGE);
	}
	NEED(!fsync(fd));
	close(fd);
	direct_fd = open("blocks", O_RDONLY | O_DIRECT | O_CLOEXEC);
	direct = mmap(NULL, DIRECT_PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	NEED(direct != MAP_FAILED);
	for (size_t i = 0; i < DIRECT_PAGES; i++)
		for (size_t k = 0; k < WORDS; k++)
			direct[i * WORDS + k] = k;
}

int main(int argc, char **argv)
{
	pthread_t writer, mapper, reader;

	self_init(argc, argv);
	CHECK(argc == 5, "dirty DIR MIB HOT_PAGES NAP_US, not %d arguments", argc - 1);
	nr_pages = strtoul(argv[2], NULL, 10) << 8;
	nr_hot = strtoul(argv[3], NULL, 10);
	nap_ns = strtol(argv[4], NULL, 10) * 1000;
	area = mmap(NULL, nr_pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	shared = mmap(NULL, SHARED_PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	counts = calloc(nr_pages, sizeof(*counts));
	NEED(area != MAP_FAILED && shared != MAP_FAILED && counts);
	for (size_t i = 0; i < nr_pages; i++)
		fill_page(area + i * WORDS);
	for (size_t i = 0; i < SHARED_PAGES; i++)
		fill_page(shared + i * WORDS);
	if (nr_hot) {
		CHECK(!pthread_create(&writer, NULL, write_pages, NULL), "no thread");
		CHECK(!pthread_create(&mapper, NULL, map_and_unmap, NULL), "no thread");
		make_blocks();
		if (direct_fd >= 0)
			CHECK(!pthread_create(&reader, NULL, read_directly, NULL), "no thread");
	}
	self_ready();
	self_wait();
	stop = true;
	if (nr_hot) {
		pthread_join(writer, NULL);
		pthread_join(mapper, NULL);
		if (direct_fd >= 0)
			pthread_join(reader, NULL);
		for (size_t i = 0; i < DIRECT_PAGES; i++)
			check_block(i);
	}
	for (size_t i = 0; i < nr_pages; i++)
		check_page("private", area + i * WORDS, counts[i]);
	for (size_t i = 0; i < SHARED_PAGES; i++)
		check_page("shared", shared + i * WORDS, shared_counts[i]);
	self_pass();
}
