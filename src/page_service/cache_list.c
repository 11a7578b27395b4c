/*
 * cache_list.c
 *	  Query cache_list: keeps the list of pages that a compute has in its file cache,
 *	  for the compute that begins from nothing.  docs/lfc.md.
 *
 * Runs in page service workers.  The query says how many bytes will come; CopyBoth
 * answers it, the bytes come in CopyData, and one CopyData says in the end that they
 * are kept: durably, in the place of the list before.  They mean nothing here and are
 * never looked at; whoever loads them judges them.
 *
 * One list at a time for each worker, in a file with a temporary name.
 */
#include "page_service.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/file_perm.h"
#include "storage/fd.h"

#include "nc/boot/image.h"
#include "nc/wire/session.h"

#define KEPT "kept"

/* Whose list comes, and how it stands; session NULL: nobody's. */
static struct
{
	NcSvcSession *session;
	int			fd;
	uint32		bytes;			/* that will come */
	uint32		came;
}			coming;

static void
temporary_name(char name[MAXPGPATH])
{
	snprintf(name, MAXPGPATH, NC_SVC_CACHE_LIST ".%d.tmp", nc_svc_worker_index);
}

/* The session leaves, or its list is kept. */
void
nc_svc_cache_list_forget(NcSvcSession *s)
{
	char		name[MAXPGPATH];

	if (coming.session != s)
		return;
	temporary_name(name);
	if (coming.fd >= 0)
		close(coming.fd);
	(void) unlink(name);
	coming.session = NULL;
}

static void
refuse_list(NcSvcSession *s, const char *what)
{
	char		text[256];

	snprintf(text, sizeof(text), "the list of cached pages was not kept: %s: %s", what, strerror(errno));
	nc_svc_cache_list_forget(s);
	nc_svc_session_refuse(s, "58030", text, NULL);
}

/* How many bytes will come; 0: not understood, or too many. */
static uint32
parse_bytes(const NcSvcWord *word)
{
	uint32		bytes = 0;

	for (int i = 0; i < word->length; i++)
	{
		if (word->text[i] < '0' || word->text[i] > '9' || bytes > NC_BOOT_CACHE_LIST_BYTES_MAX)
			return 0;
		bytes = bytes * 10 + (uint32) (word->text[i] - '0');
	}
	return bytes <= NC_BOOT_CACHE_LIST_BYTES_MAX ? bytes : 0;
}

void
nc_svc_cache_list_begin(NcSvcSession *s, const NcSvcWord *words, int n)
{
	uint32		bytes = n == 3 ? parse_bytes(&words[2]) : 0;
	char		name[MAXPGPATH];
	char		text[128];
	NcWriter	w;

	if (bytes == 0)
	{
		snprintf(text, sizeof(text), "cache_list takes a tenant id, a timeline id and a number of bytes from 1 to %d",
				 NC_BOOT_CACHE_LIST_BYTES_MAX);
		nc_svc_session_refuse(s, "XX000", text, NULL);
		return;
	}
	if (!nc_svc_session_accepts(s, &words[0], &words[1]))
		return;
	if (coming.session != NULL)
	{
		nc_svc_session_refuse(s, "55006", "another list of cached pages is coming: try again later", NULL);
		return;
	}
	temporary_name(name);
	coming.fd = open(name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, pg_file_create_mode);
	coming.session = s;
	coming.bytes = bytes;
	coming.came = 0;
	if (coming.fd < 0)
	{
		refuse_list(s, name);
		return;
	}
	w = nc_visitor_writer(&s->v);
	nc_session_copy_both(&w);
	nc_visitor_commit(&s->v, &w);
	s->mode = NC_SVC_CACHE_LIST_COMES;
}

/* All of it has come. */
static void
keep_list(NcSvcSession *s)
{
	char		name[MAXPGPATH];
	NcWriter	w;
	uint8_t    *length_at;

	temporary_name(name);
	if (pg_fsync(coming.fd) != 0 || durable_rename(name, NC_SVC_CACHE_LIST, LOG) != 0)
	{
		refuse_list(s, name);
		return;
	}
	nc_svc_cache_list_forget(s);
	w = nc_visitor_writer(&s->v);
	length_at = nc_frame_begin(&w, 'd');
	nc_write_bytes(&w, KEPT, strlen(KEPT));
	nc_frame_end(&w, length_at);
	nc_session_copy_done(&w);
	nc_session_command_complete(&w, "COPY");
	nc_session_ready(&w);
	nc_visitor_commit(&s->v, &w);
	s->mode = NC_SVC_QUERY;
}

void
nc_svc_cache_list_message(NcSvcSession *s, const NcFrame *frame)
{
	ssize_t		written;

	if (frame->type == 'X')
	{
		nc_visitor_leave(&s->v);
		return;
	}
	if (frame->type != 'd' || frame->body_bytes > coming.bytes - coming.came)
	{
		nc_svc_cache_list_forget(s);
		nc_svc_session_refuse(s, "08P01", "unexpected message inside a list of cached pages", NULL);
		return;
	}
	errno = 0;
	written = write(coming.fd, frame->body, frame->body_bytes);
	if (written != (ssize_t) frame->body_bytes)
	{
		errno = errno != 0 ? errno : ENOSPC;
		refuse_list(s, "could not write it");
		return;
	}
	/* the fsync in the end shall find little to do: nobody is answered meanwhile */
	(void) sync_file_range(coming.fd, coming.came, written, SYNC_FILE_RANGE_WRITE);
	coming.came += (uint32) written;
	if (coming.came == coming.bytes)
		keep_list(s);
}

/* Bytes of the list that is kept; 0 = none. */
uint64
nc_svc_cache_list_bytes(void)
{
	struct stat st;

	return stat(NC_SVC_CACHE_LIST, &st) == 0 && st.st_size <= NC_BOOT_CACHE_LIST_BYTES_MAX ? (uint64) st.st_size : 0;
}
