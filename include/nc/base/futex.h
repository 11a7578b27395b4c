/*
 * nc/base/futex.h
 *	  Sleeping until a word of memory changes.
 *
 * The kernel compares each word with what the caller has seen, and puts it to sleep only
 * if all are as they were, in one step as seen by whoever changes a word and then wakes.
 * A signal handler that changes one of the words ends the sleep too, whenever it runs.
 */
#ifndef NC_BASE_FUTEX_H
#define NC_BASE_FUTEX_H

#include <errno.h>
#include <linux/futex.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* Words of a sleep. */
#define NC_FUTEX_WORDS_MAX 4

typedef struct NcFutexWord
{
	const volatile void *word;	/* 32 bits, aligned */
	uint32_t	seen;
	bool		shared;			/* other processes wake; else only handlers of this one change it */
} NcFutexWord;

/* Does this kernel know sleeps on several words, and may we?  5.16 and later; a filter may forbid it. */
static inline bool
nc_futex_can(void)
{
	int			saved_errno = errno;
	bool		can = syscall(SYS_futex_waitv, NULL, 0, 0, NULL, CLOCK_MONOTONIC) < 0 && errno == EINVAL;

	errno = saved_errno;
	return can;
}

/*
 * Sleeps until one of the words is woken, is not as it was seen, or until then
 * (nc_clock_us()).  May end early: the caller looks.
 */
static inline void
nc_futex_sleep(const NcFutexWord *words, int nwords, uint64_t until_us)
{
	struct futex_waitv list[NC_FUTEX_WORDS_MAX];
	struct timespec until = {
		.tv_sec = (time_t) (until_us / 1000000),
		.tv_nsec = (long) (until_us % 1000000) * 1000
	};
	int			saved_errno = errno;

	for (int i = 0; i < nwords; i++)
		list[i] = (struct futex_waitv) {
			.val = words[i].seen, .uaddr = (uint64_t) (uintptr_t) words[i].word,
			.flags = FUTEX_32 | (words[i].shared ? 0 : FUTEX_PRIVATE_FLAG)
		};
	(void) syscall(SYS_futex_waitv, list, nwords, 0, &until, CLOCK_MONOTONIC);
	errno = saved_errno;
}

/* Wakes who sleeps on a shared word, after it was changed. Never blocks or fails. */
static inline void
nc_futex_wake(const volatile void *word)
{
	int			saved_errno = errno;

	(void) syscall(SYS_futex, word, FUTEX_WAKE, 1, NULL, NULL, 0);
	errno = saved_errno;
}

#endif							/* NC_BASE_FUTEX_H */
