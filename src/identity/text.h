/*
 * text.h
 *	  Strict, bounded reading and writing of the module's texts.
 *
 * A parser reads as its format and asks once, at the end, whether everything was
 * as it must be.  One blank separates words, one newline ends a line.
 */
#ifndef NC_IDENTITY_TEXT_H
#define NC_IDENTITY_TEXT_H

#include "nc/identity/identity.h"
#include "nc/identity/join.h"

typedef struct NcText
{
	const char *at;
	const char *end;
	bool		failed;			/* stays; what is read afterwards is nothing */
} NcText;

extern NcText nc_text(const char *text, size_t bytes);

/* Takes exactly this, or fails. */
extern void nc_text_expect(NcText *t, const char *literal);

/* Takes this if it stands here. */
extern bool nc_text_accept(NcText *t, const char *literal);

/* Takes a word: printable, no blank, shorter than room. */
extern void nc_text_word(NcText *t, char *to, size_t room);

/* Takes the rest of the line without its end, shorter than room; control characters fail. */
extern void nc_text_rest(NcText *t, char *to, size_t room);

extern uint64_t nc_text_u64(NcText *t);
extern uint32_t nc_text_u32(NcText *t);
extern NcLsn nc_text_lsn(NcText *t);

/* X/X, or "-" for 0. */
extern NcLsn nc_text_lsn_or_none(NcText *t);
extern void nc_text_id(NcText *t, bool none_allowed, NcId *out);
extern void nc_text_hex(NcText *t, uint8_t *to, size_t bytes);

/* Was everything as it must be, and is nothing left? */
extern bool nc_text_done(const NcText *t);

typedef struct NcOut
{
	char	   *start;
	size_t		used;
	size_t		room;
	bool		failed;
} NcOut;

extern NcOut nc_out(char *to, size_t room);
extern void nc_out_printf(NcOut *out, const char *format, ...) NC_PRINTF(2, 3);

/* Two digits for each byte, in lower case. */
extern void nc_out_hex(NcOut *out, const uint8_t *bytes, size_t n);

/* "word id X/X" and a newline. */
extern void nc_out_incarnation(NcOut *out, const char *word, const NcIncarnation *in);

/*
 * Lines "write_quorum n" and "member id name", "change n", and while one goes on "next_write_quorum n",
 * "next_member id name" and "decided"; nothing when members are not known.
 */
extern void nc_out_members(NcOut *out, const NcMemberLists *lists);
extern void nc_text_members(NcText *t, NcMemberLists *lists);

/* Its length without the NUL that follows; 0 when it did not fit. */
extern size_t nc_out_done(const NcOut *out);

/* Copies what a line may hold: control characters become blanks, blanks at the ends go. */
extern void nc_one_line(const char *from, char *to, size_t room);

#endif							/* NC_IDENTITY_TEXT_H */
