/* Which labels of security modules leave a process unconfined. */
#include <stdio.h>

#include "sys/label.h"

int main(void)
{
	static const struct {
		const char *label;
		bool unconfined;
	} cases[] = {
		{ "unconfined\n", true },
		{ "unconfined", true },
		{ "kernel", true },
		{ "_", true },
		{ "", true },
		{ "unconfined_u:unconfined_r:unconfined_t:s0-s0:c0.c1023", true },
		{ "unconfined_u:unconfined_r:unconfined_t", true },
		{ "system_u:system_r:httpd_t:s0\n", false },
		{ "system_u:system_r:unconfined_types_t:s0", false },
		{ "unconfined_t:x:y", false },
		{ "unconfined_t", false },
		{ "a:unconfined_t", false },
		{ "docker-default (enforce)\n", false },
		{ "unconfined (enforce)", false },
		{ "snap.firefox.firefox (complain)", false },
		{ "unconfine", false },
	};
	int failures = 0;

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		if (label_is_unconfined(cases[i].label) == cases[i].unconfined)
			continue;
		printf("'%s' is not taken for %s\n", cases[i].label, cases[i].unconfined ? "unconfined" : "confined");
		failures++;
	}
	return failures != 0;
}
