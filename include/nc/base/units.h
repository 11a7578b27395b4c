/*
 * nc/base/units.h
 *	  Units used across the core: LSNs, page size, and how an LSN is printed.
 */
#ifndef NC_BASE_UNITS_H
#define NC_BASE_UNITS_H

#include <inttypes.h>
#include <stdint.h>

/* A byte position in the WAL stream. 0 is invalid. */
typedef uint64_t NcLsn;

#define NC_LSN_INVALID ((NcLsn) 0)

/* "The newest version": the request LSN of a primary. */
#define NC_LSN_MAX UINT64_MAX

/* Every page on the wire and in memory; a server built with another block size is refused. */
#define NC_PAGE_BYTES 8192

/* Times are kept in microseconds, settings come in milliseconds. */
#define NC_MS_US(ms) ((uint64_t) (ms) * 1000)

#define NC_LSN_FMT "%X/%X"
#define NC_LSN_ARGS(lsn) ((uint32_t) ((lsn) >> 32)), ((uint32_t) (lsn))

#endif							/* NC_BASE_UNITS_H */
