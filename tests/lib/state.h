/* What /proc says of the state of a process or thread. */
#ifndef STATE_H
#define STATE_H

#include <stdio.h>
#include <string.h>
#include <sys/types.h>

/* One letter (proc_pid_stat(5)); 0: there is none of that number. The file is closed again. */
static inline char state_of(pid_t tid)
{
	char path[64], line[512], state = 0;

	snprintf(path, sizeof(path), "/proc/%d/stat", tid);
	FILE *in = fopen(path, "re");
	if (in && fgets(line, sizeof(line), in) && strrchr(line, ')'))
		sscanf(strrchr(line, ')'), ") %c", &state);
	if (in)
		fclose(in);
	return state;
}

#endif
