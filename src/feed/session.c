/*
 * session.c
 *	  Commands of a connection to the WAL feed.
 *
 * Runs in the feed.  Answers only what a walreceiver asks; every refusal says
 * what to do instead.  Never reads a catalog.
 */
#include "postgres.h"

#include <fcntl.h>
#include <unistd.h>

#include "access/xlog.h"
#include "catalog/pg_type_d.h"
#include "postmaster/postmaster.h"
#include "utils/builtins.h"
#include "utils/guc.h"

#include "feed_internal.h"

#define MAX_LSN_TEXT 18

/* ---- commands that answer with a row ---- */

static void
answer_row(NcFeedConn *conn, const NcColumn *columns, int ncolumns, const char *const *values,
		   const int *lens, const char *tag)
{
	NcWriter	w = nc_visitor_writer(&conn->v);

	nc_session_row_description(&w, columns, ncolumns);
	nc_session_data_row(&w, ncolumns, values, lens);
	nc_session_command_complete(&w, tag);
	nc_session_ready(&w);
	nc_visitor_commit(&conn->v, &w);
}

void
nc_feed_answer_text(NcFeedConn *conn, const char *column, const char *text, int bytes,
					const char *tag)
{
	NcColumn	described = {column, TEXTOID, -1};

	answer_row(conn, &described, 1, &text, &bytes, tag);
}

static void
feed_identify_system(NcFeedConn *conn, const NcFeedTurn *turn)
{
	static const NcColumn columns[] = {
		{"systemid", TEXTOID, -1}, {"timeline", INT4OID, 4},
		{"xlogpos", TEXTOID, -1}, {"dbname", TEXTOID, -1}
	};
	char		systemid[24];
	char		timeline[12];
	char		position[MAX_LSN_TEXT];
	const char *values[] = {systemid, timeline, position, NULL};
	int			lens[4];

	snprintf(systemid, sizeof(systemid), UINT64_FORMAT, GetSystemIdentifier());
	snprintf(timeline, sizeof(timeline), "%u", turn->limit.timeline);
	snprintf(position, sizeof(position), "%X/%X", LSN_FORMAT_ARGS(turn->limit.lsn));
	for (int i = 0; i < 4; i++)
		lens[i] = values[i] ? (int) strlen(values[i]) : -1;
	answer_row(conn, columns, 4, values, lens, "IDENTIFY_SYSTEM");
}

/* Reads a whole small file; its size, or -1. */
static ssize_t
read_small_file(const char *path, char *to, size_t bytes)
{
	int			fd = open(path, O_RDONLY | O_CLOEXEC);
	size_t		have = 0;
	ssize_t		got = 1;

	if (fd < 0)
		return -1;
	while (have < bytes && got > 0)
	{
		got = read(fd, to + have, bytes - have);
		if (got > 0)
			have += (size_t) got;
		else if (got < 0 && errno == EINTR)
			got = 1;
	}
	close(fd);
	return got < 0 || have == bytes ? -1 : (ssize_t) have;
}

static void
timeline_history(NcFeedConn *conn, TimeLineID timeline)
{
	static const NcColumn columns[] = {{"filename", TEXTOID, -1}, {"content", TEXTOID, -1}};
	static char content[NC_FEED_HISTORY_BYTES_MAX];
	char		name[MAXFNAMELEN];
	char		path[MAXPGPATH];
	const char *values[] = {name, content};
	int			lens[2];
	ssize_t		bytes;

	TLHistoryFileName(name, timeline);
	TLHistoryFilePath(path, timeline);
	bytes = read_small_file(path, content, sizeof(content));
	if (bytes < 0)
	{
		char		message[NC_FEED_WHY_BYTES];

		snprintf(message, sizeof(message), "could not read timeline history file \"%s\"", path);
		nc_feed_conn_error(conn, "58P01", message, NULL,
						   "The compute's pg_wal must hold the history of its timeline.");
		return;
	}
	lens[0] = (int) strlen(name);
	lens[1] = (int) bytes;
	answer_row(conn, columns, 2, values, lens, "TIMELINE_HISTORY");
}

/* Settings that need no privilege and that replication clients ask for. */
static void
show(NcFeedConn *conn, const char *name)
{
	static const char *const known[] = {"wal_segment_size", "data_directory_mode",
		"server_version", "server_version_num", "integer_datetimes", "block_size",
	"wal_block_size", "data_checksums"};
	const char *value = NULL;

	for (size_t i = 0; i < lengthof(known) && value == NULL; i++)
	{
		if (pg_strcasecmp(known[i], name) == 0)
			value = GetConfigOptionByName(known[i], NULL, true);
	}
	if (value == NULL)
		nc_feed_conn_error(conn, "0A000", "the WAL feed does not show this setting", name,
						   "Use the server's own port.");
	else
	{
		NcColumn	column = {name, TEXTOID, -1};
		int			len = (int) strlen(value);

		answer_row(conn, &column, 1, &value, &len, "SHOW");
	}
}

/* ---- START_REPLICATION ---- */

static bool
check_slot(NcFeedConn *conn, const NcFeedCommand *cmd, int *slot)
{
	char		message[NC_FEED_WHY_BYTES];

	if (cmd->name[0] == '\0')
	{
		nc_feed_conn_error(conn, "22023", "the WAL feed does not stream without a slot",
						   "Without one, nothing would keep the WAL that this page server needs.",
						   "Set primary_slot_name on the page server to its name in "
						   "neon_comm.wal_feed_slots.");
		return false;
	}
	*slot = nc_feed_slot_find(cmd->name);
	if (*slot >= 0)
		return true;
	snprintf(message, sizeof(message), "slot \"%s\" is not registered", cmd->name);
	nc_feed_conn_error(conn, "42704", message, NULL,
					   "Add it to neon_comm.wal_feed_slots of the compute and reload, or "
					   "correct primary_slot_name on the page server.");
	return false;
}

static bool
check_timeline(NcFeedConn *conn, const NcFeedTurn *turn, const NcFeedCommand *cmd)
{
	char		message[NC_FEED_WHY_BYTES];

	if (cmd->timeline == 0 || cmd->timeline == turn->limit.timeline)
		return true;
	snprintf(message, sizeof(message),
			 "requested starting point %X/%X is on timeline %u, this compute is on timeline %u",
			 LSN_FORMAT_ARGS(cmd->start), cmd->timeline, turn->limit.timeline);
	nc_feed_conn_error(conn, "55000", message,
					   "A compute never changes its timeline, so this page server holds the "
					   "data of another one or has been promoted.",
					   NC_FEED_KEEP_BOTH);
	return false;
}

/* In recovery the end of WAL is not known: then the connection waits and is checked later. */
static bool
check_start(NcFeedConn *conn, const NcFeedTurn *turn, const NcFeedCommand *cmd)
{
	char		message[NC_FEED_WHY_BYTES];
	NcFeedLimit limit = turn->limit;

	if (!limit.in_recovery && nc_feed_wal_beyond(&limit, cmd->start))
	{
		snprintf(message, sizeof(message),
				 "requested starting point %X/%X is ahead of the WAL flush position of this "
				 "compute %X/%X", LSN_FORMAT_ARGS(cmd->start), LSN_FORMAT_ARGS(limit.lsn));
		nc_feed_conn_error(conn, "55000", message,
						   "The page server has WAL that this compute has lost.",
						   NC_FEED_KEEP_BOTH);
		return false;
	}
	if (cmd->start < limit.lsn && !nc_feed_wal_present(limit.timeline, cmd->start))
	{
		XLogSegNo	number;
		char		name[MAXFNAMELEN];

		XLByteToSeg(cmd->start, number, wal_segment_size);
		XLogFileName(name, limit.timeline, number, wal_segment_size);
		snprintf(message, sizeof(message),
				 "requested WAL segment %s has already been removed", name);
		nc_feed_conn_error(conn, "58P01", message, NULL,
						   "The page server is older than the WAL kept for it. Bring the segment back "
						   "into pg_wal of the compute, or put a copy of another page server in its "
						   "place; until then keep its directory.");
		return false;
	}
	return true;
}

static bool
check_retention(NcFeedConn *conn, const NcFeedTurn *turn, int slot, XLogRecPtr start)
{
	const char *why;
	char		message[NC_FEED_WHY_BYTES];

	if (turn->limit.in_recovery || nc_feed_slot_ensure(slot, turn->now, &why))
	{
		if (nc_feed_slot_needs(slot, start, turn))
			return true;
		why = "WAL that the page server needs was removed in this moment";
	}
	snprintf(message, sizeof(message), "no WAL can be kept for \"%s\"", nc_feed_slot_names[slot]);
	nc_feed_conn_error(conn, "55000", message, why, "The compute's log says more.");
	return false;
}

static void
start_replication(NcFeedConn *conn, const NcFeedTurn *turn, const NcFeedCommand *cmd)
{
	int			slot;

	if (check_slot(conn, cmd, &slot) && nc_feed_join_may_stream(conn, slot) &&
		check_timeline(conn, turn, cmd) &&
		check_start(conn, turn, cmd) && check_retention(conn, turn, slot, cmd->start))
		nc_feed_stream_begin(conn, turn, slot, cmd->start);
}

/* ---- dispatch ---- */

static void
refuse_command(NcFeedConn *conn, const NcFeedCommand *cmd)
{
	char		message[NC_FEED_WHY_BYTES];

	if (cmd->kind == NC_FEED_CMD_MALFORMED)
	{
		nc_feed_conn_error(conn, "42601", "syntax error in replication command", NULL,
						   "The WAL feed knows IDENTIFY_SYSTEM, START_REPLICATION SLOT name "
						   "[PHYSICAL] X/X [TIMELINE n], TIMELINE_HISTORY n and SHOW name.");
		return;
	}
	snprintf(message, sizeof(message), "the WAL feed does not know the command \"%s\"",
			 cmd->kind == NC_FEED_CMD_START_LOGICAL ? "START_REPLICATION LOGICAL" : cmd->name);
	nc_feed_conn_error(conn, "0A000", message,
					   "It sends WAL to page servers and makes their slots itself.",
					   "Use the server's own port for queries, base backups, slots and logical "
					   "replication.");
}

static void
run_command(NcFeedConn *conn, const NcFeedTurn *turn, const char *text)
{
	NcFeedCommand cmd;
	NcWriter	w;

	nc_feed_command_parse(text, &cmd);
	ereport(DEBUG1, (errmsg_internal("WAL feed received from %s: %s", conn->v.address, text)));
	switch (cmd.kind)
	{
		case NC_FEED_CMD_IDENTIFY:
			feed_identify_system(conn, turn);
			break;
		case NC_FEED_CMD_JOIN:
			nc_feed_join(conn, turn, text);
			break;
		case NC_FEED_CMD_START:
			start_replication(conn, turn, &cmd);
			break;
		case NC_FEED_CMD_HISTORY:
			timeline_history(conn, cmd.timeline);
			break;
		case NC_FEED_CMD_SHOW:
			show(conn, cmd.name);
			break;
		case NC_FEED_CMD_EMPTY:
			w = nc_visitor_writer(&conn->v);
			nc_frame_end(&w, nc_frame_begin(&w, 'I'));
			nc_session_ready(&w);
			nc_visitor_commit(&conn->v, &w);
			break;
		case NC_FEED_CMD_UNKNOWN:
		case NC_FEED_CMD_MALFORMED:
		case NC_FEED_CMD_START_LOGICAL:
			refuse_command(conn, &cmd);
			break;
	}
}

void
nc_feed_session_command(NcFeedConn *conn, const NcFeedTurn *turn, const NcFrame *frame)
{
	switch (frame->type)
	{
		case 'Q':
			if (memchr(frame->body, 0, frame->body_bytes) == NULL)
				nc_feed_conn_fatal(conn, "08P01", "query without an end", NULL, NULL);
			else
				run_command(conn, turn, (const char *) frame->body);
			break;
		case 'd':
		case 'c':
		case 'f':
			/* Was on its way when streaming ended. */
			break;
		case 'X':
			nc_visitor_leave(&conn->v);
			break;
		default:
			nc_feed_conn_fatal(conn, "0A000",
							   "the WAL feed knows the simple query protocol only", NULL,
							   "Use the server's own port.");
			break;
	}
}
