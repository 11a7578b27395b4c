/*
 * nc/base/bytes.h
 *	  Bounded read and write cursors with a sticky failure flag.
 *
 * All marshalling goes through them: a parser reads as the schema of its
 * message and asks once, at the end, whether everything was there.  Integers
 * are big-endian, as on the wire.  Nothing here allocates or asserts on bytes.
 */
#ifndef NC_BASE_BYTES_H
#define NC_BASE_BYTES_H

#include <endian.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* Reads from [at, end). After a read past the end, failed stays true and reads give zeroes. */
typedef struct NcReader
{
	const uint8_t *at;
	const uint8_t *end;
	bool		failed;
} NcReader;

/* Writes to [start, end). After a write past the end, failed stays true and nothing is written. */
typedef struct NcWriter
{
	uint8_t    *start;
	uint8_t    *at;
	uint8_t    *end;
	bool		failed;
} NcWriter;

/* As on the wire, from and to bytes of any alignment. */
static inline uint32_t
nc_load_u32(const uint8_t *p)
{
	uint32_t	v;

	memcpy(&v, p, sizeof(v));
	return be32toh(v);
}

static inline uint64_t
nc_load_u64(const uint8_t *p)
{
	uint64_t	v;

	memcpy(&v, p, sizeof(v));
	return be64toh(v);
}

static inline void
nc_store_u32(uint8_t *p, uint32_t v)
{
	v = htobe32(v);
	memcpy(p, &v, sizeof(v));
}

static inline void
nc_store_u64(uint8_t *p, uint64_t v)
{
	v = htobe64(v);
	memcpy(p, &v, sizeof(v));
}

static inline NcReader
nc_reader(const void *data, size_t bytes)
{
	const uint8_t *p = data;

	return (NcReader) {p, p + bytes, false};
}

static inline size_t
nc_reader_left(const NcReader *r)
{
	return (size_t) (r->end - r->at);
}

/* Next n bytes, or NULL (and failed) when fewer are left. */
static inline const uint8_t *
nc_read_bytes(NcReader *r, size_t n)
{
	const uint8_t *p = r->at;

	if (r->failed || nc_reader_left(r) < n)
	{
		r->failed = true;
		return NULL;
	}
	r->at += n;
	return p;
}

static inline uint8_t
nc_read_u8(NcReader *r)
{
	const uint8_t *p = nc_read_bytes(r, 1);

	return p ? p[0] : 0;
}

static inline uint16_t
nc_read_u16(NcReader *r)
{
	const uint8_t *p = nc_read_bytes(r, 2);

	return p ? (uint16_t) (p[0] << 8 | p[1]) : 0;
}

static inline uint32_t
nc_read_u32(NcReader *r)
{
	const uint8_t *p = nc_read_bytes(r, 4);

	return p ? nc_load_u32(p) : 0;
}

static inline uint64_t
nc_read_u64(NcReader *r)
{
	const uint8_t *p = nc_read_bytes(r, 8);

	return p ? nc_load_u64(p) : 0;
}

/* A NUL-terminated string inside the buffer; NULL (and failed) when no NUL is left. */
static inline const char *
nc_read_cstring(NcReader *r)
{
	const uint8_t *nul = r->failed ? NULL : memchr(r->at, 0, nc_reader_left(r));
	const char *s = (const char *) r->at;

	if (nul == NULL)
	{
		r->failed = true;
		return NULL;
	}
	r->at = nul + 1;
	return s;
}

static inline NcWriter
nc_writer(void *buffer, size_t capacity)
{
	uint8_t    *p = buffer;

	return (NcWriter) {p, p, p + capacity, false};
}

static inline size_t
nc_writer_bytes(const NcWriter *w)
{
	return (size_t) (w->at - w->start);
}

/* Room for n bytes, or NULL (and failed). The caller fills it. */
static inline uint8_t *
nc_write_space(NcWriter *w, size_t n)
{
	uint8_t    *p = w->at;

	if (w->failed || (size_t) (w->end - w->at) < n)
	{
		w->failed = true;
		return NULL;
	}
	w->at += n;
	return p;
}

static inline void
nc_write_bytes(NcWriter *w, const void *data, size_t n)
{
	uint8_t    *p = nc_write_space(w, n);

	if (p != NULL && n > 0)
		memcpy(p, data, n);
}

static inline void
nc_write_u8(NcWriter *w, uint8_t v)
{
	nc_write_bytes(w, &v, 1);
}

static inline void
nc_write_u16(NcWriter *w, uint16_t v)
{
	uint8_t		b[2] = {(uint8_t) (v >> 8), (uint8_t) v};

	nc_write_bytes(w, b, 2);
}

static inline void
nc_write_u32(NcWriter *w, uint32_t v)
{
	uint8_t		b[4] = {(uint8_t) (v >> 24), (uint8_t) (v >> 16), (uint8_t) (v >> 8), (uint8_t) v};

	nc_write_bytes(w, b, sizeof(b));
}

static inline void
nc_write_u64(NcWriter *w, uint64_t v)
{
	v = htobe64(v);
	nc_write_bytes(w, &v, sizeof(v));
}

/* The string and its NUL. */
static inline void
nc_write_cstring(NcWriter *w, const char *s)
{
	nc_write_bytes(w, s, strlen(s) + 1);
}

/* Puts a length (itself included) into the four bytes at `at`, counting up to the cursor. */
static inline void
nc_write_length_at(NcWriter *w, uint8_t *at)
{
	if (!w->failed && at != NULL)
		nc_store_u32(at, (uint32_t) (w->at - at));
}

#endif							/* NC_BASE_BYTES_H */
