/*
 * test_environment.c
 *	  What is taken out of the environment of a server, and what is left.
 */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "nc/base/environment.h"

static void
test_clean(void **state)
{
	static const char *const gone[] = {"PGHOST", "PGHOSTADDR", "PGSSLMODE", "PGNEW2", "PG"};
	static const char *const stays[] = {"PGDATA", "PGLOCALEDIR", "PGBACKREST_REPO1_PATH", "PG_COLOR", "PATHX", "PGx"};
	char		removed[64];

	for (size_t i = 0; i < sizeof(gone) / sizeof(*gone); i++)
		setenv(gone[i], "secret", 1);
	for (size_t i = 0; i < sizeof(stays) / sizeof(*stays); i++)
		setenv(stays[i], "x", 1);
	assert_true(nc_environment_clean(removed, sizeof(removed)) >= 5);
	for (size_t i = 0; i < sizeof(gone) / sizeof(*gone); i++)
		assert_null(getenv(gone[i]));
	for (size_t i = 0; i < sizeof(stays) / sizeof(*stays); i++)
		assert_non_null(getenv(stays[i]));
	assert_null(strstr(removed, "secret"));
	assert_non_null(strstr(removed, "PGHOST"));
	assert_int_equal(nc_environment_clean(removed, sizeof(removed)), 0);
	assert_string_equal(removed, "");
	setenv("PGSYSCONFDIR", "/etc", 1);
	assert_int_equal(nc_environment_clean(removed, sizeof(removed)), 0);
	assert_null(getenv("PGSYSCONFDIR"));
	assert_string_equal(removed, "");
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_clean)
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
