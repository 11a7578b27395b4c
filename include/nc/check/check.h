/*
 * nc/check/check.h
 *	  Looks whether a compute and its page servers are well and fit together.
 *
 * Any process that may wait and raise errors.  Each question to another machine has the
 * same bounded time, all are asked at once, and one that is not answered is a row of its
 * own; nothing of this compute that may be stuck is waited for.  No row has a secret.
 */
#ifndef NC_CHECK_CHECK_H
#define NC_CHECK_CHECK_H

#include "postgres.h"

typedef enum NcCheckState
{
	NC_CHECK_OK = 0,
	NC_CHECK_WARNING,			/* works, and will not for ever */
	NC_CHECK_ERROR,
	NC_CHECK_UNKNOWN			/* could not be asked; what says why */
} NcCheckState;

extern const char *nc_check_state_name(NcCheckState state);

typedef struct NcCheckRow
{
	const char *item;			/* docs/reference.md has the list */
	const char *subject;		/* what was looked at: a setting, a slot, an address */
	NcCheckState state;
	const char *what;
	const char *remedy;			/* NULL when there is nothing to do */
} NcCheckRow;

typedef void (*NcCheckPut) (void *arg, const NcCheckRow *row);

typedef struct NcCheckLimits
{
	int			seconds;		/* for questions to page servers, all together */
	int			days;			/* tokens and certificates are good for longer */
	int			free_percent;	/* of a file system */
} NcCheckLimits;

extern void nc_check_run(const NcCheckLimits *limits, NcCheckPut put, void *arg);

#endif							/* NC_CHECK_CHECK_H */
