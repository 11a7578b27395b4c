/*
 * nc/base/check.h
 *	  Assertions and compiler attributes of the PostgreSQL-free core.
 *
 * NC_ASSERT states a fact about our own code; bytes that come from a peer, a
 * file or a user are never asserted, they are checked and refused.
 */
#ifndef NC_BASE_CHECK_H
#define NC_BASE_CHECK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef NC_ASSERTIONS
#include <stdio.h>
#include <stdlib.h>
#define NC_ASSERT(cond) \
	((cond) ? (void) 0 : \
	 (fprintf(stderr, "%s:%d: assertion failed: %s\n", __FILE__, __LINE__, #cond), abort()))
#else
#define NC_ASSERT(cond) ((void) sizeof(cond))
#endif

#define NC_STATIC_ASSERT(cond, text) _Static_assert(cond, text)
#define NC_MUST_USE __attribute__((warn_unused_result))
#define NC_PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))

/* For what hardly ever runs: out of the way of what always does. */
#define NC_RARE __attribute__((cold, noinline))

/* What two processors fetch together; shared words of different owners are kept apart by it. */
#define NC_CACHE_LINE_BYTES 64

#endif							/* NC_BASE_CHECK_H */
