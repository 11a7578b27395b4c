/*
 * resolve.c
 *	  getaddrinfo() in a thread that nobody waits for.
 *
 * Runs in the communicator.  The one object shared with the thread has two
 * holders; whoever lets go last frees it.  Neither side ever blocks the other.
 */
#include "nc/net/resolve.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* A resolver thread needs little; the default would reserve 8 MB of addresses. */
#define RESOLVE_STACK_BYTES (256 * 1024)

/*
 * Written by the caller before the thread is made, then by the thread alone until it
 * stores `done`; from then on by nobody, and the caller may read it.
 */
struct NcResolve
{
	_Atomic int holders;		/* 2 at the start: caller and thread */
	_Atomic int done;			/* stored with release by the thread, after the fields below */
	int			wake_fd;		/* the thread's own duplicate, or -1 */
	uint32_t	count;
	char		address[NC_RESOLVE_ADDRESSES_MAX][NC_RESOLVE_ADDRESS_BYTES];
	char		error[128];
	char		host[];
};

static void
resolve_let_go(NcResolve *r)
{
	/*
	 * Pairs with itself.  Release: what this holder did with it comes before the other
	 * one frees it.  Acquire: who frees it is behind that.
	 */
	if (atomic_fetch_sub_explicit(&r->holders, 1, memory_order_acq_rel) == 1)
		free(r);
}

static void
resolve_collect(NcResolve *r, const struct addrinfo *list)
{
	for (const struct addrinfo *a = list; a != NULL; a = a->ai_next)
	{
		if (r->count == NC_RESOLVE_ADDRESSES_MAX)
			break;
		if (getnameinfo(a->ai_addr, a->ai_addrlen, r->address[r->count],
						NC_RESOLVE_ADDRESS_BYTES, NULL, 0, NI_NUMERICHOST) == 0)
			r->count++;
	}
	if (r->count == 0)
		snprintf(r->error, sizeof(r->error), "the name has no address");
}

static void *
resolve_main(void *arg)
{
	NcResolve  *r = arg;
	struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
	struct addrinfo *list = NULL;
	int			rc = getaddrinfo(r->host, NULL, &hints, &list);
	/* a copy, since r is read by the caller once it is done */
	int			wake_fd = r->wake_fd;
	uint64_t	one = 1;

	if (rc == 0)
	{
		resolve_collect(r, list);
		freeaddrinfo(list);
	}
	else
		snprintf(r->error, sizeof(r->error), "%s", gai_strerror(rc));
	/* pairs with nc_resolve_done() */
	atomic_store_explicit(&r->done, 1, memory_order_release);
	if (wake_fd >= 0)
	{
		ssize_t		n = write(wake_fd, &one, sizeof(one));

		(void) n;				/* a saturated eventfd is readable anyway */
		close(wake_fd);
	}
	resolve_let_go(r);
	return NULL;
}

/* The thread inherits the mask: no signal handler of the process may run in it. */
static int
resolve_spawn(NcResolve *r)
{
	pthread_attr_t attr;
	pthread_t	thread;
	sigset_t	all;
	sigset_t	saved;
	int			rc;

	if (pthread_attr_init(&attr) != 0)
		return -1;
	(void) pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	(void) pthread_attr_setstacksize(&attr, RESOLVE_STACK_BYTES);
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &saved);
	rc = pthread_create(&thread, &attr, resolve_main, r);
	pthread_sigmask(SIG_SETMASK, &saved, NULL);
	pthread_attr_destroy(&attr);
	return rc;
}

NcResolve *
nc_resolve_start(const char *host, int wake_fd)
{
	size_t		bytes = strlen(host) + 1;
	NcResolve  *r = calloc(1, sizeof(*r) + bytes);

	if (r == NULL)
		return NULL;
	memcpy(r->host, host, bytes);
	atomic_init(&r->holders, 2);
	/* its own: the caller's may be closed, and its number another file's, when the thread ends */
	r->wake_fd = wake_fd >= 0 ? dup(wake_fd) : -1;
	if (resolve_spawn(r) != 0)
	{
		if (r->wake_fd >= 0)
			close(r->wake_fd);
		free(r);
		return NULL;
	}
	return r;
}

bool
nc_resolve_done(NcResolve *r)
{
	/* pairs with the store in resolve_main(): who sees it sees addresses and error */
	return atomic_load_explicit(&r->done, memory_order_acquire) != 0;
}

uint32_t
nc_resolve_count(const NcResolve *r)
{
	return r->count;
}

const char *
nc_resolve_error(const NcResolve *r)
{
	return r->error;
}

const char *
nc_resolve_address(const NcResolve *r, uint32_t index)
{
	NC_ASSERT(index < r->count);
	return r->address[index];
}

void
nc_resolve_release(NcResolve *r)
{
	resolve_let_go(r);
}

bool
nc_resolve_is_literal(const char *host)
{
	unsigned char address[sizeof(struct in6_addr)];
	char		bare[NC_RESOLVE_ADDRESS_BYTES];

	if (host == NULL || host[0] == '\0' || host[0] == '/' || host[0] == '@')
		return true;
	/* an IPv6 address may carry a zone, which inet_pton() does not know */
	snprintf(bare, sizeof(bare), "%.*s", (int) strcspn(host, "%"), host);
	return inet_pton(AF_INET, host, address) == 1 || inet_pton(AF_INET6, bare, address) == 1;
}
