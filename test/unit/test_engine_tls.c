/*
 * test_engine_tls.c
 *	  The engine inside TLS: records of every size, new keys all the time,
 *	  passwords, ends.
 *
 * As test_engine.c, with a page server that offers TLS.  Every page that arrives
 * is compared byte by byte.
 */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "engine_world.h"
#include "nc/net/net.h"
#include "tls_files.h"

#define READS 24
#define PAGES 8

static TlsFiles files;
static TlsFiles other_files;
static NcTlsContext *context;

static void
demand_tls(World *w)
{
	char	   *conninfo = w->map.conninfo[0];

	snprintf(conninfo, sizeof(w->map.conninfo[0]), "host=127.0.0.1 port=%u sslmode=require",
			 mock_ps_port(w->servers[0]));
}

static World *
open_world(NcLoopMethod io, size_t record_bytes)
{
	World	   *w = world_open(io, 4, 1);

	mock_ps_tls(w->servers[0], context, record_bytes);
	world_map(w, 1, 8);
	demand_tls(w);
	return w;
}

/* Several ranges at a time, so that answers follow each other within one record and across. */
static void
read_ranges(World *w)
{
	for (uint32_t first = 0; first < READS; first += 4)
	{
		WorldRead	reads[4];

		for (uint32_t i = 0; i < 4; i++)
		{
			reads[i] = (WorldRead) {.ring = i, .slot = first % 8, .kind = NC_SLOT_KIND_GETPAGE,
				.rel = 100 + first, .block = i * PAGES, .nblocks = PAGES, .dest = i * PAGES};
			world_submit(w, &reads[i]);
		}
		for (uint32_t i = 0; i < 4; i++)
		{
			world_wait(w, i, reads[i].slot);
			assert_int_equal(world_collect(w, i, reads[i].slot), NC_SLOT_RESULT_OK);
			assert_true(world_pages_right(w, &reads[i]));
		}
	}
}

static void
test_records(NcLoopMethod io)
{
	static const size_t sizes[] = {97, 1000, 4099, 8192, 16384};

	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++)
	{
		World	   *w = open_world(io, sizes[i]);

		world_start(w);
		read_ranges(w);
		assert_int_equal(world_counter(w, NC_COUNTER_DISCONNECTS), 0);
		assert_int_equal(world_counter(w, NC_COUNTER_RESENT), 0);
		world_close(w);
	}
}

static void
test_records_uring(void **state)
{
	test_records(NC_LOOP_URING);
}

static void
test_records_epoll(void **state)
{
	test_records(NC_LOOP_EPOLL);
}

/* A server that goes away inside TLS is one that goes away: the page comes over the next connection. */
static void
test_lost(void **state)
{
	World	   *w = open_world(NC_LOOP_EPOLL, 1000);
	WorldRead	r = {.rel = 100, .block = 7};

	world_start(w);
	mock_ps_fault(w->servers[0], MOCK_CLOSE_MID_FRAME, 0, 1);
	world_submit(w, &r);
	world_wait_counter(w, NC_COUNTER_DISCONNECTS, 1);
	w->now_us += 2 * NC_BACKOFF_MAX_US;
	world_wait(w, r.ring, r.slot);
	assert_int_equal(world_collect(w, r.ring, r.slot), NC_SLOT_RESULT_OK);
	assert_true(world_pages_right(w, &r));
	world_close(w);
}

/* Whom we do not know we do not talk to, and the reason is told. */
static void
test_unknown_authority(void **state)
{
	World	   *w = open_world(NC_LOOP_EPOLL, 1000);
	WorldRead	r = {.rel = 100, .block = 7};
	char	   *conninfo = w->map.conninfo[0];

	snprintf(conninfo, sizeof(w->map.conninfo[0]),
			 "host=127.0.0.1 port=%u sslmode=verify-full sslrootcert=%s",
			 mock_ps_port(w->servers[0]), "/nowhere/ca");
	world_start(w);
	world_submit(w, &r);
	world_wait_counter(w, NC_COUNTER_CONNECT_FAILURES, 1);
	assert_non_null(strstr(w->log, "root certificate file \"/nowhere/ca\" does not exist"));
	world_stop(w);

	/* somebody else's authority: libpq says only that something is wrong, we say what */
	snprintf(conninfo, sizeof(w->map.conninfo[0]),
			 "host=127.0.0.1 port=%u sslmode=verify-full sslrootcert=%s",
			 mock_ps_port(w->servers[0]), other_files.cert);
	w->log[0] = '\0';
	world_start(w);
	world_wait_counter(w, NC_COUNTER_CONNECT_FAILURES, 2);
	assert_non_null(strstr(w->log, "certificate verify failed (self-signed certificate)"));
	world_stop(w);

	/* signed by itself and named "test": known, and still not the host that was asked for */
	snprintf(conninfo, sizeof(w->map.conninfo[0]),
			 "host=127.0.0.1 port=%u sslmode=verify-full sslrootcert=%s",
			 mock_ps_port(w->servers[0]), files.cert);
	w->log[0] = '\0';
	world_start(w);
	world_wait_counter(w, NC_COUNTER_CONNECT_FAILURES, 3);
	assert_non_null(strstr(w->log, "server certificate for \"test\" does not match host name "
						   "\"127.0.0.1\""));
	assert_int_equal(mock_ps_requests(w->servers[0]), 0);
	world_close(w);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_records_uring),
		cmocka_unit_test(test_records_epoll),
		cmocka_unit_test(test_lost),
		cmocka_unit_test(test_unknown_authority),
	};
	char		err[256];
	int			rc;

	signal(SIGPIPE, SIG_IGN);
	tls_files_make(&files);
	tls_files_make(&other_files);
	context = nc_tls_context_load(files.cert, files.key, err, sizeof(err));
	if (context == NULL)
	{
		fprintf(stderr, "%s\n", err);
		return 1;
	}
	rc = cmocka_run_group_tests(tests, NULL, NULL);
	nc_tls_context_free(context);
	tls_files_remove(&files);
	tls_files_remove(&other_files);
	return rc;
}
