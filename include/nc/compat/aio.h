/*
 * nc/compat/aio.h
 *	  How many AIO handles the server has: none before 18.
 */
#ifndef NC_COMPAT_AIO_H
#define NC_COMPAT_AIO_H

#include "postgres.h"

#include "miscadmin.h"
#include "storage/proc.h"

#include "nc/compat/pg.h"

#if PG_VERSION_NUM >= 180000

#include "storage/aio.h"
#include "storage/aio_internal.h"

/* As many as there can be; the server chooses after libraries have asked for memory, and no more than that. */
static inline uint32
nc_pg_aio_handles_max(void)
{
	return NC_PROC_COUNT() * (uint32) (io_max_concurrency > 0 ? io_max_concurrency : 64);
}

/* As many as there are, once shared memory is there. */
static inline uint32
nc_pg_aio_handles(void)
{
	return pgaio_ctl->io_handle_count;
}

/* Index of the process that a handle belongs to, for ever. */
static inline uint32
nc_pg_aio_owner(uint32 handle)
{
	return (uint32) pgaio_ctl->io_handles[handle].owner_procno;
}

#else

static inline uint32
nc_pg_aio_handles_max(void)
{
	return 0;
}

static inline uint32
nc_pg_aio_handles(void)
{
	return 0;
}

static inline uint32
nc_pg_aio_owner(uint32 handle)
{
	return 0;
}

#endif

#endif							/* NC_COMPAT_AIO_H */
