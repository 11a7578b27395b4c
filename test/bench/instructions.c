/*
 * instructions.c
 *	  Reads pages through the engine from a page server of the unit tests, a given number of
 *	  times, so that instructions can be counted (instructions.sh).
 *
 * One thread, a clock that the program moves, the loop of epoll: two runs execute the same
 * instructions but for what the kernel answers how fast, and that is a turn without work.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine_world.h"

typedef struct Case
{
	const char *name;
	uint32_t	rings;			/* processes */
	uint32_t	slots;			/* requests of each at a time */
	uint32_t	blocks;			/* pages of a request */
	NcSlotClass class;
} Case;

static const Case cases[] = {
	{"one_page", 1, 1, 1, NC_SLOT_CLASS_DEMAND},
	{"64_backends", 64, 1, 1, NC_SLOT_CLASS_DEMAND},
	{"readahead", 1, 8, 16, NC_SLOT_CLASS_PREFETCH},
};

static void
read_once(World *w, const Case *c, uint32_t block)
{
	for (uint32_t ring = 0; ring < c->rings; ring++)
		for (uint32_t slot = 0; slot < c->slots; slot++)
			world_submit(w, &(WorldRead) {.ring = ring, .slot = slot, .kind = NC_SLOT_KIND_GETPAGE, .class = c->class,
				.rel = 1000 + ring, .block = block + slot * c->blocks, .nblocks = c->blocks,
				.dest = (ring * c->slots + slot) * c->blocks});
	for (uint32_t ring = 0; ring < c->rings; ring++)
		for (uint32_t slot = 0; slot < c->slots; slot++)
		{
			world_wait(w, ring, slot);
			if (world_collect(w, ring, slot) != NC_SLOT_RESULT_OK)
				fail_msg("%s: a read failed; log:\n%s", c->name, w->log);
		}
}

int
main(int argc, char **argv)
{
	uint32_t	pages = argc == 3 ? (uint32_t) atoi(argv[2]) : 0;

	for (size_t i = 0; pages > 0 && i < sizeof(cases) / sizeof(cases[0]); i++)
	{
		const Case *c = &cases[i];
		uint32_t	at_once = c->rings * c->slots * c->blocks;
		World	   *w;

		if (strcmp(argv[1], c->name) != 0)
			continue;
		w = world_open(NC_LOOP_EPOLL, c->rings, 1);
		world_start(w);
		for (uint32_t done = 0; done < pages; done += at_once)
			read_once(w, c, done);
		world_close(w);
		return 0;
	}
	fprintf(stderr, "usage: instructions CASE PAGES; cases:");
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		fprintf(stderr, " %s", cases[i].name);
	fprintf(stderr, "\n");
	return 2;
}
