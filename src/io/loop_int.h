/*
 * loop_int.h
 *	  What loop.c and the two methods share.  Private to src/io.
 */
#ifndef NC_IO_LOOP_INT_H
#define NC_IO_LOOP_INT_H

#include "nc/io/loop.h"

/* One method. Every function gets the loop that its create function returned. */
typedef struct NcLoopVtable
{
	const char *name;
	void		(*destroy) (NcLoop *loop);
	void		(*adopt) (NcLoop *loop, int fd);
	void		(*forget) (NcLoop *loop, int fd);
	void		(*start) (NcLoop *loop, NcOp *op);
	void		(*cancel) (NcLoop *loop, NcOp *op);
	void		(*flush) (NcLoop *loop);
	bool		(*ready) (const NcLoop *loop);
	int			(*fd) (const NcLoop *loop);	/* NULL: none */
	void		(*wait) (NcLoop *loop, uint64_t timeout_us);
} NcLoopVtable;

/* The first member of each method's own struct. */
struct NcLoop
{
	const NcLoopVtable *vtable;
	NcOp	   *collected_head;
	NcOp	   *collected_tail;
	uint32_t	started;
};

extern NcLoop *nc_loop_uring_create(char *err, size_t err_bytes);
extern NcLoop *nc_loop_epoll_create(char *err, size_t err_bytes);

/* A method tells that an operation is done. */
extern void nc_loop_collect(NcLoop *loop, NcOp *op, int result);

#endif							/* NC_IO_LOOP_INT_H */
