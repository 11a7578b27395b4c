/*
 * nc/wire/session.h
 *	  The few messages of the PostgreSQL v3 frontend/backend protocol that the
 *	  page service and the WAL feed speak as servers.
 *
 * Pure codec: parsing works on a receive window owned by the caller, building
 * appends to an NcWriter.  Source of the layouts: PostgreSQL documentation,
 * chapter "Frontend/Backend Protocol".
 */
#ifndef NC_WIRE_SESSION_H
#define NC_WIRE_SESSION_H

#include "nc/base/bytes.h"
#include "nc/base/check.h"

/* Startup packets outside this range are refused before anything is allocated. */
#define NC_STARTUP_BYTES_MIN 8
#define NC_STARTUP_BYTES_MAX 10000

/* A typed message from a client (Query, CopyData, password) is bounded by this. */
#define NC_CLIENT_MESSAGE_BYTES_MAX (64 * 1024)

typedef enum NcStartupKind
{
	NC_STARTUP_INCOMPLETE,		/* read more */
	NC_STARTUP_SSL,				/* answer 'S' or 'N', then expect another packet */
	NC_STARTUP_GSSENC,			/* answer 'N', then expect another packet */
	NC_STARTUP_CANCEL,			/* close */
	NC_STARTUP_V3,				/* parameters follow */
	NC_STARTUP_INVALID			/* close */
} NcStartupKind;

#define NC_STARTUP_PARAMS_MAX 32

typedef struct NcStartup
{
	NcStartupKind kind;
	size_t		consumed;		/* bytes of the window that this packet took */
	int			nparams;
	struct
	{
		const char *name;		/* point into the window */
		const char *value;
	}			params[NC_STARTUP_PARAMS_MAX];
} NcStartup;

/* Parses one startup-phase packet at the start of the window. */
extern void nc_startup_parse(const uint8_t *data, size_t bytes, NcStartup *out);

/* Value of a startup parameter, or NULL. */
extern const char *nc_startup_param(const NcStartup *s, const char *name);

typedef enum NcFrameResult
{
	NC_FRAME_INCOMPLETE,		/* read more */
	NC_FRAME_OK,
	NC_FRAME_INVALID			/* length below 4 or above the bound: close */
} NcFrameResult;

/* A typed message: one tag byte, int32 length (itself included), body. */
typedef struct NcFrame
{
	char		type;
	const uint8_t *body;
	size_t		body_bytes;
	size_t		consumed;		/* 1 + length */
} NcFrame;

/* Splits the first typed message off the window; body_max bounds its body. */
extern NcFrameResult nc_frame_parse(const uint8_t *data, size_t bytes, size_t body_max,
									NcFrame *out);

/* Opens a typed message; returns where its length goes, for nc_frame_end. */
extern uint8_t *nc_frame_begin(NcWriter *w, char type);
extern void nc_frame_end(NcWriter *w, uint8_t *length_at);

extern void nc_session_auth_ok(NcWriter *w);
extern void nc_session_auth_cleartext(NcWriter *w);
extern void nc_session_parameter_status(NcWriter *w, const char *name, const char *value);
extern void nc_session_ready(NcWriter *w);
extern void nc_session_command_complete(NcWriter *w, const char *tag);
extern void nc_session_copy_both(NcWriter *w);
extern void nc_session_copy_out(NcWriter *w);
extern void nc_session_copy_done(NcWriter *w);

/* ErrorResponse with S=severity, V=severity, C=sqlstate, M=message and, if not NULL, D and H. */
extern void nc_session_error(NcWriter *w, const char *severity, const char *sqlstate,
							 const char *message, const char *detail, const char *hint);

/* One column of a text-format result; type_oid as in pg_type (25 text, 23 int4, 17 bytea). */
typedef struct NcColumn
{
	const char *name;
	uint32_t	type_oid;
	int16_t		type_len;
} NcColumn;

extern void nc_session_row_description(NcWriter *w, const NcColumn *cols, int ncols);

/* A DataRow of ncols values; lens[i] < 0 means NULL. */
extern void nc_session_data_row(NcWriter *w, int ncols, const char *const *values,
								const int *lens);

#endif							/* NC_WIRE_SESSION_H */
