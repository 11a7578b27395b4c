/*
 * nc/serve/listener.h
 *	  Where strangers reach us: lists of addresses, listening sockets, and the
 *	  next one who waits at a socket.
 *
 * A list is addresses with commas or blanks between them.  Sockets are
 * non-blocking and closed in programs that are started.
 */
#ifndef NC_SERVE_LISTENER_H
#define NC_SERVE_LISTENER_H

#include <netinet/in.h>
#include <sys/socket.h>

#include "nc/base/check.h"

#define NC_LISTEN_ADDRESS_BYTES 256

/* Sockets of one process. */
#define NC_LISTENERS_MAX 8

/* "255.255.255.255:65535", or an IPv6 address in brackets. */
#define NC_PEER_BYTES (INET6_ADDRSTRLEN + 9)

typedef struct NcListenHow
{
	const char *addresses;
	int			port;
	bool		names;			/* names are resolved, "*" is all addresses; else numbers and localhost */
	bool		shared;			/* other processes of the server listen on the same port */
	bool		paths;			/* absolute paths are Unix sockets; with port 0 nothing else is listened on */
	bool		first;			/* ... and this is the first: fails if anybody else uses the port */
} NcListenHow;

/* Why an address could not be listened on. */
typedef struct NcListenFault
{
	char		address[NC_LISTEN_ADDRESS_BYTES];
	int			error;			/* errno, 0 = see text */
	const char *text;
} NcListenFault;

/*
 * Copies the next address of *list, which moves behind it; false at the end.  One
 * that is too long is cut, and is then no address.
 */
extern bool nc_listen_next(const char **list, char address[NC_LISTEN_ADDRESS_BYTES]);

/*
 * Is it the absolute path of a Unix socket, and not too long for one?  The socket is its owner's and his group's
 * (mode 0660); one that is left of a process that has ended is replaced, nothing else is.
 */
extern bool nc_listen_address_is_path(const char *address);

/* Is it a number of this machine, localhost, or such a path? Other names may be anything. */
extern bool nc_listen_address_is_loopback(const char *address);

/* Are all of a list? */
extern bool nc_listen_is_loopback(const char *addresses);

/*
 * Opens all sockets; how many, 0 with the fault when an address failed (then none is
 * open).  What does not fit into NC_LISTENERS_MAX is a fault, too.
 */
NC_MUST_USE extern int nc_listen_open(const NcListenHow *how, int fds[NC_LISTENERS_MAX],
									  NcListenFault *fault);

/* The next one who waits, with his address; -1 with errno. */
NC_MUST_USE extern int nc_listen_accept(int fd, struct sockaddr_storage *peer);

extern void nc_peer_text(const struct sockaddr_storage *peer, char out[NC_PEER_BYTES]);

/*
 * One number for a machine, never 0; of IPv6, where a machine has as many addresses as
 * it likes, for its net of 64 bits.  All whose address is unknown are one machine.
 */
extern uint64_t nc_peer_machine(const struct sockaddr_storage *peer);

#endif							/* NC_SERVE_LISTENER_H */
