/*
 * nc/worker/programs.h
 *	  The processes of neon_comm, registered by _PG_init in the postmaster.
 */
#ifndef NC_WORKER_PROGRAMS_H
#define NC_WORKER_PROGRAMS_H

/* Hosts the engine; its eventfd is made here. */
extern void nc_communicator_register(void);

/* Streams WAL to page servers. */
extern void nc_feed_register(void);

/* Gives local blocks back every neon_comm.sweep_interval. */
extern void nc_sweeper_register(void);

/* Answers by HTTP what shared memory says. */
extern void nc_exporter_register(void);

/* Writes traced requests out; only when there is somewhere to. */
extern void nc_tracer_register(void);

/* Writes the file of the local file cache, if there is one. */
extern void nc_filecache_writer_register(void);

#endif							/* NC_WORKER_PROGRAMS_H */
