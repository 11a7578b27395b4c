/*
 * nc/net/late.h
 *	  NcLate: when an answer that somebody waits for is late, and how many requests
 *	  may be sent a second time because of that.
 *
 * What the answers of a shard take is followed by their mean and how far they are
 * from it; late is what takes several times as long.  Requests sent twice are paid
 * for by those that are sent once.
 *
 * Plain memory of a pool, in the communicator.  Time is told, nothing is read.
 */
#ifndef NC_NET_LATE_H
#define NC_NET_LATE_H

#include <stdbool.h>
#include <stdint.h>

/* Late is so many times what is usual ... */
#define NC_LATE_TIMES 4

/* ... but never less, for a machine may be busy, nor more; and this, before anything is known. */
#define NC_LATE_MIN_US 100000
#define NC_LATE_MAX_US 5000000
#define NC_LATE_UNKNOWN_US 1000000

/* With several hosts: one that lets somebody wait so long for WAL is behind, and another one is asked. */
#define NC_HOST_WAL_US 200000

/* One request of so many may be sent twice: 5 %; and so many at once, after a quiet time. */
#define NC_LATE_PRICE 20
#define NC_LATE_BURST 8

typedef struct NcLate
{
	uint64_t	mean_us;		/* 0 = nothing known */
	uint64_t	away_us;		/* mean distance from the mean */
	uint32_t	credit;			/* NC_LATE_PRICE for each that may be sent */
} NcLate;

extern void nc_late_init(NcLate *l);

/* An answer that somebody waited for took so long. */
extern void nc_late_note(NcLate *l, uint64_t took_us);

/* After how long an answer is late. */
extern uint64_t nc_late_after_us(const NcLate *l);

/* A request that somebody waits for is sent. */
extern void nc_late_earn(NcLate *l);

/* May one more be sent a second time? */
extern bool nc_late_may_spend(const NcLate *l);
extern void nc_late_spend(NcLate *l);

#endif							/* NC_NET_LATE_H */
