/*
 * nc/lsn/throttle.h
 *	  How long a process that writes WAL has to pause, by how far page servers lag.
 */
#ifndef NC_LSN_THROTTLE_H
#define NC_LSN_THROTTLE_H

#include <stdint.h>

/* A process may write this many bytes of WAL in a microsecond where a limit is just exceeded. */
#define NC_THROTTLE_BYTES_PER_US 64

/* Each excess of limit / NC_THROTTLE_STEPS doubles the pause. */
#define NC_THROTTLE_STEPS 16

/*
 * Microseconds of pause that `written` bytes of WAL cost while the lag is `lag`
 * bytes and its limit `limit` bytes; 0 when the limit is 0 (off) or not exceeded.
 *
 * The pause doubles with each sixteenth of the limit that the lag is above it,
 * with straight lines between: rates meet the drain rate of the page servers
 * somewhere above the limit instead of going on and off around it.  Grows with
 * each argument but `limit`; never overflows.
 */
extern uint64_t nc_throttle_pause_us(uint64_t written, uint64_t lag, uint64_t limit);

#endif							/* NC_LSN_THROTTLE_H */
