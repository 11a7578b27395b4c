/*
 * nc/safety/kind_of_server.h
 *	  Servers with a storage-manager hook and servers without one look alike to the loader,
 *	  and have other structs and other arguments.
 */
#ifndef NC_SAFETY_KIND_OF_SERVER_H
#define NC_SAFETY_KIND_OF_SERVER_H

/*
 * ERROR, which ends a start, unless this library (its name) was built for the kind of
 * server that has loaded it.  Any process, before anything else of the library runs.
 */
extern void nc_kind_of_server_check(const char *library);

#endif							/* NC_SAFETY_KIND_OF_SERVER_H */
