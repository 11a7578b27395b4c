/*
 * test_conninfo.c
 *	  Connection strings are judged as libpq would, before anybody relies on them,
 *	  and what is said about a bad one repeats nothing of it.
 *
 * Runs without a server; nothing is connected to.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#include "nc/net/handshake.h"

static const char *const good[] = {
	"host=127.0.0.1 port=64000",
	"hostaddr=127.0.0.1 port=64000 sslmode=verify-full sslrootcert=/nowhere/ca.crt",
	"host=ps0.example port=1 connect_timeout=3 application_name='a b'",
	"postgresql://ps0.example:64000/neon?sslmode=require",
	"host=/var/run/postgresql",
	"port=64000",
	"host=a,b port=1,2",
	"postgresql://a,b:2/x",
};

static const char *const bad[] = {
	"hots=secret1 port=64000",
	"host=127.0.0.1 port",
	"host='secret1",
	"host=127.0.0.1 password = one secret1",
	"host=127.0.0.1 port=secret1",
	"host=127.0.0.1 port=0",
	"host=127.0.0.1 port=65536",
	"host=127.0.0.1 sslmode=secret1",
	"hostaddr=127.0.0.1 target_session_attrs=secret1",
	"postgresql://127.0.0.1:64000/?nosuchthing=secret1",
	"host=a,b,c port=1,2",
	"host=a, port=1",
	"host=,a port=1",
	"host=a,b port=1,secret1",
	"host=a,b port=1,0",
	"host=a,b hostaddr=127.0.0.1",
	"host=a,b,c,d,e,f,g,h,i port=1",
	"secret1",
};

static void
what_libpq_takes_is_taken(void **state)
{
	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++)
	{
		NcConninfoParts parts;
		char		err[256] = "";

		if (!nc_conninfo_check(good[i], &parts, err, sizeof(err)))
			fail_msg("%s: %s", good[i], err);
		assert_false(parts.has_password);
	}
}

/* Secrets go to every host of a list, so one that is elsewhere is enough. */
static void
lists_are_local_as_a_whole(void **state)
{
	static const struct
	{
		const char *conninfo;
		bool		is_local;
	}			of[] = {
		{"port=1", true},
		{"host=localhost", true},
		{"host=127.0.0.1,::1,/tmp,localhost", true},
		{"host=ps.example hostaddr=127.0.0.2", true},
		{"host=/tmp,ps.example", false},
		{"host=@ps,ps.example", false},
		{"host=ps.example,/tmp", false},
		{"host=localhost,127.0.0.1,192.0.2.1", false},
		{"host=a,ps.example hostaddr=127.0.0.1,", false},
		{"host=localhost.example.org", false},
	};

	for (size_t i = 0; i < sizeof(of) / sizeof(of[0]); i++)
	{
		NcConninfoParts parts;
		char		err[256] = "";

		assert_true(nc_conninfo_parts(of[i].conninfo, &parts, err, sizeof(err)));
		if (parts.is_local != of[i].is_local)
			fail_msg("%s", of[i].conninfo);
	}
}

/* Opening a fifo waits for who writes to it, and the communicator would. */
static void
what_is_no_file_is_refused(void **state)
{
	static const char *const keywords[] = {"sslcert", "sslkey", "sslrootcert", "sslcrl"};
	char		directory[] = "/tmp/nc_conninfo_XXXXXX";
	char		fifo[64];
	char		conninfo[256];

	assert_non_null(mkdtemp(directory));
	snprintf(fifo, sizeof(fifo), "%s/secret1", directory);
	assert_int_equal(mkfifo(fifo, 0600), 0);
	for (size_t i = 0; i < sizeof(keywords) / sizeof(keywords[0]); i++)
	{
		NcConninfoParts parts;
		char		err[256] = "";
		NcHandshakeParams params = {.conninfo = conninfo, .token_file = "", .options = "",
			.protocol_version = 3, .tenant_id = "", .timeline_id = ""};
		NcHandshake *h;

		snprintf(conninfo, sizeof(conninfo), "host=127.0.0.1 port=1 %s=%s", keywords[i], fifo);
		assert_false(nc_conninfo_check(conninfo, &parts, err, sizeof(err)));
		assert_null(strstr(err, "secret1"));
		/* it may become one after the string was taken */
		h = nc_handshake_start(&params);
		assert_int_equal(nc_handshake_advance(h), NC_HANDSHAKE_FAILED);
		assert_non_null(strstr(nc_handshake_error(h), keywords[i]));
		nc_handshake_free(h);
	}
	assert_int_equal(unlink(fifo), 0);
	assert_int_equal(rmdir(directory), 0);
}

static void
options_are_kept_or_refused(void **state)
{
	NcConninfoParts parts;
	char		err[256] = "";
	char		longer[sizeof(parts.options) + 40];

	assert_true(nc_conninfo_parts("host=h options='-c a=b  -c c=d'", &parts, err, sizeof(err)));
	assert_string_equal(parts.options, "-c a=b  -c c=d");
	snprintf(longer, sizeof(longer), "options=%0*d", (int) sizeof(parts.options), 0);
	assert_false(nc_conninfo_parts(longer, &parts, err, sizeof(err)));
	assert_non_null(strstr(err, "options"));
}

static void
what_libpq_refuses_is_refused(void **state)
{
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
	{
		NcConninfoParts parts;
		char		err[256] = "";

		if (nc_conninfo_check(bad[i], &parts, err, sizeof(err)))
			fail_msg("%s was taken", bad[i]);
		assert_string_not_equal(err, "");
		assert_null(strstr(err, "secret1"));
	}
}

/* A process that has all the descriptors it may have says so, and takes what is good all the same. */
static void
strings_are_judged_without_descriptors(void **state)
{
	NcHandshakeParams params = {.conninfo = "host=127.0.0.1 port=1", .token_file = "", .options = "",
		.protocol_version = 3, .tenant_id = "", .timeline_id = ""};
	NcConninfoParts parts;
	NcHandshake *h;
	char		err[256] = "";
	struct rlimit before;
	struct rlimit none;
	int			next = dup(STDERR_FILENO);
	bool		taken;

	close(next);
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
	none = (struct rlimit) {(rlim_t) next, before.rlim_max};
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
	taken = nc_conninfo_check(params.conninfo, &parts, err, sizeof(err));
	h = nc_handshake_start(&params);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
	assert_true(taken);
	assert_int_equal(nc_handshake_advance(h), NC_HANDSHAKE_FAILED);
	assert_non_null(strstr(nc_handshake_error(h), "could not create socket: Too many open files"));
	nc_handshake_free(h);
}

static void
assert_host(const char *conninfo, uint32_t count, uint32_t index, const char *one)
{
	char		out[NC_HOST_CONNINFO_BYTES];

	assert_int_equal(nc_conninfo_host(conninfo, index, out, sizeof(out)), count);
	assert_string_equal(out, one);
}

/* All else is said to each of them: TLS and its names hold for each host. */
static void
each_host_of_a_list_has_its_own_string(void **state)
{
	NcConninfoParts parts;
	char		err[256];

	assert_host("host=a  port=1", 1, 0, "host=a  port=1");
	assert_host("no string", 1, 0, "no string");
	assert_host("host=a,b port=1,2 sslmode=verify-full", 2, 0, "host=a port=1 sslmode=verify-full");
	assert_host("host=a,b port=1,2 sslmode=verify-full", 2, 1, "host=b port=2 sslmode=verify-full");
	assert_host("host=a,b,c port=7", 3, 2, "host=c port=7");
	assert_host("hostaddr=10.0.0.1,::1 host=a,b", 2, 1, "host=b hostaddr=::1");
	assert_host("hostaddr=10.0.0.1,::1", 2, 1, "hostaddr=::1");
	assert_host("postgresql://u@a,b:2/x?application_name=it%27s%20%5C", 2, 0,
				"user=u dbname=x host=a application_name='it\\'s \\\\'");
	assert_host("postgresql://u@a,b:2/x?application_name=it%27s%20%5C", 2, 1,
				"user=u dbname=x host=b port=2 application_name='it\\'s \\\\'");
	assert_true(nc_conninfo_parts("user=u dbname=x host=a application_name='it\\'s \\\\'", &parts, err, sizeof(err)));
}

static void
passwords_are_seen_however_written(void **state)
{
	static const char *const with[] = {
		"host=127.0.0.1 password=x", "postgresql://u:x@127.0.0.1/", "postgresql://127.0.0.1/?passw%6Frd=x"
	};

	for (size_t i = 0; i < sizeof(with) / sizeof(with[0]); i++)
	{
		NcConninfoParts parts;
		char		err[256];

		assert_true(nc_conninfo_check(with[i], &parts, err, sizeof(err)));
		assert_true(parts.has_password);
	}
}

/* What a string leaves to a service is known to libpq alone. */
static void
services_are_seen(void **state)
{
	NcConninfoParts parts;
	char		err[256];

	assert_true(nc_conninfo_parts("service=s", &parts, err, sizeof(err)));
	assert_true(parts.has_service);
	assert_true(nc_conninfo_parts("postgresql:///?servic%65=s", &parts, err, sizeof(err)));
	assert_true(parts.has_service);
	assert_true(nc_conninfo_parts("host=service port=1", &parts, err, sizeof(err)));
	assert_false(parts.has_service);
}

static void
file_of_passwords_at_home_is_seen(void **state)
{
	char		directory[] = "/tmp/nc_conninfo_XXXXXX";
	char		file[64];
	char		path[256] = "";
	FILE	   *f;

	assert_non_null(mkdtemp(directory));
	assert_int_equal(setenv("HOME", directory, 1), 0);
	assert_false(nc_conninfo_home_passfile(path, sizeof(path)));
	snprintf(file, sizeof(file), "%s/.pgpass", directory);
	f = fopen(file, "w");
	assert_non_null(f);
	assert_int_equal(fclose(f), 0);
	assert_true(nc_conninfo_home_passfile(path, sizeof(path)));
	assert_string_equal(path, file);
	assert_int_equal(unlink(file), 0);
	assert_int_equal(rmdir(directory), 0);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_libpq_takes_is_taken),
		cmocka_unit_test(lists_are_local_as_a_whole),
		cmocka_unit_test(what_is_no_file_is_refused),
		cmocka_unit_test(options_are_kept_or_refused),
		cmocka_unit_test(what_libpq_refuses_is_refused),
		cmocka_unit_test(strings_are_judged_without_descriptors),
		cmocka_unit_test(each_host_of_a_list_has_its_own_string),
		cmocka_unit_test(passwords_are_seen_however_written),
		cmocka_unit_test(services_are_seen),
		cmocka_unit_test(file_of_passwords_at_home_is_seen),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
