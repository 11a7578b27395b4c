/*
 * file.c
 *	  Opening what should be a file.
 */
#include "nc/base/file.h"

#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

int
nc_file_open(const char *path, int flags, mode_t mode)
{
	struct stat st;
	int			fd = open(path, flags | O_CLOEXEC | O_NONBLOCK | O_NOCTTY, mode);

	if (fd < 0)
	{
		/* a fifo that nobody reads, a socket, a directory */
		if (errno == ENXIO || errno == EISDIR)
			errno = NC_NOT_A_FILE;
		return -1;
	}
	if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode))
		return fd;
	close(fd);
	errno = NC_NOT_A_FILE;
	return -1;
}

FILE *
nc_file_fopen(const char *path, const char *mode)
{
	int			flags = mode[0] == 'r' ? O_RDONLY :
		O_WRONLY | O_CREAT | (mode[0] == 'a' ? O_APPEND : O_TRUNC);
	int			fd = nc_file_open(path, flags, 0666);
	FILE	   *file;
	int			saved;

	if (fd < 0)
		return NULL;
	file = fdopen(fd, mode);
	if (file != NULL)
		return file;
	saved = errno;
	close(fd);
	errno = saved;
	return NULL;
}

const char *
nc_file_error(int error)
{
	return error == NC_NOT_A_FILE ? "it is not a regular file" : strerror(error);
}
