/*
 * command.c
 *	  The text of a replication command.
 *
 * Runs in the feed.  Takes any text: what it does not know it names, what is
 * malformed it says; it never throws and writes only to its result.
 */
#include "postgres.h"

#include "feed_internal.h"

typedef struct Lexer
{
	const char *at;
	bool		quoted;			/* the last word was in double quotes */
	bool		broken;			/* a word was too long or a quote not closed */
	char		word[NAMEDATALEN];
} Lexer;

static bool
lex_quoted(Lexer *lex)
{
	size_t		n = 0;

	lex->quoted = true;
	for (lex->at++; *lex->at != '\0'; lex->at++)
	{
		if (*lex->at == '"')
		{
			if (lex->at[1] != '"')
			{
				lex->at++;
				lex->word[n] = '\0';
				return true;
			}
			lex->at++;
		}
		if (n + 1 >= sizeof(lex->word))
			break;
		lex->word[n++] = *lex->at;
	}
	lex->broken = true;
	return false;
}

/* The next word; false at the end of the command or when it is broken. */
static bool
lex_next(Lexer *lex)
{
	size_t		n;

	lex->quoted = false;
	lex->word[0] = '\0';
	lex->at += strspn(lex->at, " \t\r\n;");
	if (*lex->at == '\0')
		return false;
	if (*lex->at == '"')
		return lex_quoted(lex);
	n = strcspn(lex->at, " \t\r\n;\"");
	if (n >= sizeof(lex->word))
	{
		lex->broken = true;
		return false;
	}
	memcpy(lex->word, lex->at, n);
	lex->word[n] = '\0';
	lex->at += n;
	return true;
}

static bool
lexer_word_is(const Lexer *lex, const char *keyword)
{
	return !lex->quoted && pg_strcasecmp(lex->word, keyword) == 0;
}

static bool
parse_lsn(const char *text, XLogRecPtr *lsn)
{
	static const char hex[] = "0123456789abcdefABCDEF";
	size_t		high = strspn(text, hex);
	size_t		low;

	if (high < 1 || high > 8 || text[high] != '/')
		return false;
	low = strspn(text + high + 1, hex);
	if (low < 1 || low > 8 || text[high + 1 + low] != '\0')
		return false;
	*lsn = (XLogRecPtr) strtoul(text, NULL, 16) << 32 | strtoul(text + high + 1, NULL, 16);
	return true;
}

static bool
parse_timeline(const char *text, TimeLineID *timeline)
{
	size_t		digits = strspn(text, "0123456789");
	unsigned long value;

	if (digits < 1 || digits > 10 || text[digits] != '\0')
		return false;
	value = strtoul(text, NULL, 10);
	*timeline = (TimeLineID) value;
	return value > 0 && value <= PG_UINT32_MAX;
}

/* [SLOT name] [PHYSICAL | LOGICAL] X/X [TIMELINE n] */
static NcFeedCommandKind
parse_start(Lexer *lex, NcFeedCommand *out)
{
	if (!lex_next(lex))
		return NC_FEED_CMD_MALFORMED;
	if (lexer_word_is(lex, "SLOT"))
	{
		if (!lex_next(lex) || lex->word[0] == '\0')
			return NC_FEED_CMD_MALFORMED;
		strlcpy(out->name, lex->word, sizeof(out->name));
		if (!lex_next(lex))
			return NC_FEED_CMD_MALFORMED;
	}
	if (lexer_word_is(lex, "LOGICAL"))
		return NC_FEED_CMD_START_LOGICAL;
	if (lexer_word_is(lex, "PHYSICAL") && !lex_next(lex))
		return NC_FEED_CMD_MALFORMED;
	if (lex->quoted || !parse_lsn(lex->word, &out->start))
		return NC_FEED_CMD_MALFORMED;
	if (!lex_next(lex))
		return NC_FEED_CMD_START;
	if (!lexer_word_is(lex, "TIMELINE") || !lex_next(lex) ||
		!parse_timeline(lex->word, &out->timeline))
		return NC_FEED_CMD_MALFORMED;
	return NC_FEED_CMD_START;
}

static NcFeedCommandKind
parse_words(Lexer *lex, NcFeedCommand *out)
{
	if (!lex_next(lex))
		return lex->broken ? NC_FEED_CMD_MALFORMED : NC_FEED_CMD_EMPTY;
	if (lexer_word_is(lex, "IDENTIFY_SYSTEM"))
		return NC_FEED_CMD_IDENTIFY;
	if (lexer_word_is(lex, NC_JOIN_COMMAND))
		return NC_FEED_CMD_JOIN;
	if (lexer_word_is(lex, "START_REPLICATION"))
		return parse_start(lex, out);
	if (lexer_word_is(lex, "TIMELINE_HISTORY"))
	{
		if (!lex_next(lex) || !parse_timeline(lex->word, &out->timeline))
			return NC_FEED_CMD_MALFORMED;
		return NC_FEED_CMD_HISTORY;
	}
	if (lexer_word_is(lex, "SHOW"))
	{
		if (!lex_next(lex))
			return NC_FEED_CMD_MALFORMED;
		strlcpy(out->name, lex->word, sizeof(out->name));
		return NC_FEED_CMD_SHOW;
	}
	strlcpy(out->name, lex->word, sizeof(out->name));
	return NC_FEED_CMD_UNKNOWN;
}

void
nc_feed_command_parse(const char *text, NcFeedCommand *out)
{
	Lexer		lex = {.at = text};

	memset(out, 0, sizeof(*out));
	out->kind = parse_words(&lex, out);
	if (out->kind == NC_FEED_CMD_UNKNOWN || out->kind == NC_FEED_CMD_JOIN || out->kind == NC_FEED_CMD_MALFORMED ||
		out->kind == NC_FEED_CMD_EMPTY || out->kind == NC_FEED_CMD_START_LOGICAL)
		return;
	if (lex_next(&lex) || lex.broken)
		out->kind = NC_FEED_CMD_MALFORMED;
}
