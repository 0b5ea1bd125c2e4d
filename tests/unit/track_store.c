/* The store keeps the page with the lowest number, tells what could not be read, and gives memory back. */
#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "track/store.h"

static uint8_t page[STORE_PAGE_BYTES];

static const uint8_t *bytes_of(uint8_t value)
{
	memset(page, value, sizeof(page));
	return page;
}

static int value_at(const struct store *s, uint32_t mm, uint64_t addr)
{
	const struct store_entry *e = store_find(s, mm, addr);

	if (!e)
		return -1;
	return e->unread ? -2 : e->taken ? -3 : store_bytes(s, e)[4095];
}

static void lowest_wins(void)
{
	struct store s;

	assert(!store_init(&s, 16));
	assert(value_at(&s, 1, 0x1000) == -1);
	assert(!store_put(&s, 1, 0x1000, 5, bytes_of(5)));
	assert(!store_put(&s, 1, 0x1000, 7, bytes_of(7)));
	assert(value_at(&s, 1, 0x1000) == 5);
	assert(!store_put(&s, 1, 0x1000, 3, bytes_of(3)));
	assert(value_at(&s, 1, 0x1000) == 3);
	/* Nothing could be read earlier still: later contents do not count. */
	assert(!store_put(&s, 1, 0x1000, 2, NULL));
	assert(value_at(&s, 1, 0x1000) == -2);
	assert(!store_put(&s, 1, 0x1000, 4, bytes_of(4)));
	assert(value_at(&s, 1, 0x1000) == -2);
	assert(!store_put(&s, 1, 0x1000, 1, bytes_of(1)));
	assert(value_at(&s, 1, 0x1000) == 1);
	/* Other address spaces are other pages. */
	assert(value_at(&s, 2, 0x1000) == -1);
	store_take(&s, store_find(&s, 1, 0x1000));
	assert(!store_put(&s, 1, 0x1000, 0, bytes_of(9)));
	assert(value_at(&s, 1, 0x1000) == -3);
	store_deinit(&s);
}

static void many_pages(void)
{
	enum { NR = 100000 };
	struct store s;
	uint32_t slot;

	assert(!store_init(&s, 0));
	for (uint64_t i = 0; i < NR; i++) {
		assert(!store_put(&s, i % 3, (i + 1) << 12, i + 1, bytes_of(i)));
		if (i >= 10)
			store_take(&s, store_find(&s, (i - 10) % 3, (i - 9) << 12));
	}
	for (uint64_t i = 0; i < NR; i++)
		assert(value_at(&s, i % 3, (i + 1) << 12) == (i < NR - 10 ? -3 : (uint8_t)i));
	/* Ten pages at a time need one block, not twenty-five. */
	assert(s.blocks.nr == 1);

	uint8_t *row = store_room(&s, STORE_RUN_PAGES, &slot);
	assert(row);
	memset(row, 0x77, STORE_RUN_PAGES * STORE_PAGE_BYTES);
	for (uint32_t i = 0; i < STORE_RUN_PAGES; i++)
		assert(!store_set(&s, 7, (uint64_t)(i + 1) << 12, 0, slot + i));
	assert(value_at(&s, 7, STORE_RUN_PAGES << 12) == 0x77);
	for (uint64_t i = NR - 10; i < NR; i++)
		assert(value_at(&s, i % 3, (i + 1) << 12) == (uint8_t)i);
	/* Rows never cross blocks, and never share pages. */
	for (int k = 0; k < 40; k++) {
		uint32_t more;
		uint8_t *p = store_room(&s, 300, &more);

		assert(p && more % 4096 + 300 <= 4096);
		memset(p, k, 300 * STORE_PAGE_BYTES);
	}
	assert(value_at(&s, 7, STORE_RUN_PAGES << 12) == 0x77);
	store_clear(&s);
	assert(value_at(&s, 7, 0x1000) == -1);
	store_deinit(&s);
}

int main(void)
{
	lowest_wins();
	many_pages();
	puts("PASS");
	return 0;
}
