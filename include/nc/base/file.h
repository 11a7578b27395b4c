/*
 * nc/base/file.h
 *	  Opening what should be a file.
 *
 * A name that an operator sets, or that lies in a directory that others can write
 * to, may lead to a fifo or a device.  Opening or reading one can wait for ever,
 * and the process that does it may be the postmaster.
 */
#ifndef NC_BASE_FILE_H
#define NC_BASE_FILE_H

#include <errno.h>
#include <stdio.h>
#include <sys/types.h>

#include "nc/base/check.h"

/* errno of what is no regular file; no call on a regular file leaves it. */
#define NC_NOT_A_FILE ENOTSUP

/*
 * As open(2), close-on-exec; mode is for a file that is made.  Never waits.  -1 and errno,
 * NC_NOT_A_FILE for everything but a regular file.  Any process.
 */
extern int	nc_file_open(const char *path, int flags, mode_t mode);

/* The same as fopen(3); mode begins with r, w or a, a + is not known. */
extern FILE *nc_file_fopen(const char *path, const char *mode);

/* Words for an errno of these two. */
extern const char *nc_file_error(int error);

#endif							/* NC_BASE_FILE_H */
