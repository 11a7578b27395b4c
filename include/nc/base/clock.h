/*
 * nc/base/clock.h
 *	  The one clock: microseconds that never jump; and the one for leases.
 */
#ifndef NC_BASE_CLOCK_H
#define NC_BASE_CLOCK_H

#include <stdint.h>
#include <time.h>

/* CLOCK_MONOTONIC in microseconds. Any process; the same scale in all of one host. */
static inline uint64_t
nc_clock_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t) ts.tv_sec * 1000000 + (uint64_t) ts.tv_nsec / 1000;
}

/* CLOCK_BOOTTIME in microseconds: goes on while the machine sleeps. */
static inline uint64_t
nc_boot_clock_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_BOOTTIME, &ts);
	return (uint64_t) ts.tv_sec * 1000000 + (uint64_t) ts.tv_nsec / 1000;
}

#endif							/* NC_BASE_CLOCK_H */
