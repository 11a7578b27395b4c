/*
 * nc/shared/test_point.h
 *	  Named places in the code where a test can stop a process, make a call
 *	  fail or answer a question otherwise, so that races are arranged instead
 *	  of waited for.
 *
 * They exist in a test build only (-DNC_TEST_RULES); in a release build every
 * macro here is a constant and nothing of it reaches the library.  Tests arm
 * them through SQL functions that they make themselves (test/perl/NeonComm/
 * TestPoint.pm) or, before SQL works, through neon_comm.test_points.
 *
 * Any process, also inside critical sections and with locks held; not inside a
 * spinlock or a signal handler.
 */
#ifndef NC_SHARED_TEST_POINT_H
#define NC_SHARED_TEST_POINT_H

#ifdef NC_TEST_RULES

#include "postgres.h"

/* Stops, raises an error or kills the process, as armed; with "errno" it does nothing. */
#define NC_TEST_POINT(name) NC_TEST_POINT_REL(name, 0)

/* The same about a relation, by its number: the point may be armed for one only. */
#define NC_TEST_POINT_REL(name, rel) ((void) nc_test_point_reached(name, rel))

/* As above; true, with errno set, when armed with "errno". */
#define NC_TEST_FAULT(name) NC_TEST_FAULT_REL(name, 0)
#define NC_TEST_FAULT_REL(name, rel) (nc_test_point_reached(name, rel) == NC_TEST_FOUND_ERRNO)

/* As NC_TEST_POINT; true when armed with "true". */
#define NC_TEST_TRUE(name) (nc_test_point_reached(name, 0) == NC_TEST_FOUND_TRUE)

/* What a process that reaches a point has to do. */
typedef enum NcTestFound
{
	NC_TEST_FOUND_NOTHING,
	NC_TEST_FOUND_ERRNO,
	NC_TEST_FOUND_TRUE
} NcTestFound;

/* Called through the macros. Before shared memory exists it does nothing. */
extern NcTestFound nc_test_point_reached(const char *name, uint32 rel);

/* Defines neon_comm.test_points; called by _PG_init. */
extern void nc_test_point_guc_init(void);

extern Size nc_test_point_shmem_bytes(void);
extern void nc_test_point_shmem_startup(void);

#else

#define NC_TEST_POINT(name) ((void) 0)
#define NC_TEST_POINT_REL(name, rel) ((void) 0)
#define NC_TEST_FAULT(name) false
#define NC_TEST_FAULT_REL(name, rel) false
#define NC_TEST_TRUE(name) false

#endif

#endif							/* NC_SHARED_TEST_POINT_H */
