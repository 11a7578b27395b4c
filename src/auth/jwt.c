/*
 * jwt.c
 *	  Tokens taken apart: base64url, a strict and small JSON reader, claims.
 *
 * Runs in the page service and the WAL feed, on bytes of anybody who can
 * connect.  Guarantees that work and memory are bounded by the bound of the text
 * and that nothing is read outside of it.  Whatever is doubtful is refused: a
 * member given twice, a type that is not the expected one, a header or claim
 * that must be understood and is not.
 */
#include "nc/auth/jwt.h"

#include <ctype.h>
#include <string.h>
#include <strings.h>

/* Nesting of values that are skipped. */
#define DEPTH_MAX 8

/* Longest member name or string value that matters to us, its end included. */
#define WORD_BYTES 64

/* Digits of a time in seconds; more would be no date. */
#define TIME_DIGITS_MAX 12

/* ---- base64url ---- */

static int
base64url_value(char c)
{
	if (c >= 'A' && c <= 'Z')
		return c - 'A';
	if (c >= 'a' && c <= 'z')
		return c - 'a' + 26;
	if (c >= '0' && c <= '9')
		return c - '0' + 52;
	if (c == '-')
		return 62;
	return c == '_' ? 63 : -1;
}

/* Decodes without padding into room bytes; false when it is not canonical or too long. */
static bool
base64url_decode(const char *text, size_t bytes, uint8_t *out, size_t room, size_t *out_bytes)
{
	uint32_t	bits = 0;
	int			nbits = 0;
	size_t		n = 0;

	for (size_t i = 0; i < bytes; i++)
	{
		int			value = base64url_value(text[i]);

		if (value < 0)
			return false;
		bits = bits << 6 | (uint32_t) value;
		nbits += 6;
		if (nbits < 8)
			continue;
		nbits -= 8;
		if (n == room)
			return false;
		out[n++] = (uint8_t) (bits >> nbits);
	}
	*out_bytes = n;
	/* A lone last character, or bits that belong to no byte. */
	return nbits < 6 && (bits & ((1u << nbits) - 1)) == 0;
}

/* ---- JSON ---- */

typedef struct Json
{
	const char *at;
	const char *end;
} Json;

static void
skip_json_blanks(Json *j)
{
	while (j->at < j->end && (*j->at == ' ' || *j->at == '\t' || *j->at == '\n' || *j->at == '\r'))
		j->at++;
}

/* Takes the character, blanks before it aside. */
static bool
take_char(Json *j, char c)
{
	skip_json_blanks(j);
	if (j->at == j->end || *j->at != c)
		return false;
	j->at++;
	return true;
}

static bool
peek(Json *j, char c)
{
	skip_json_blanks(j);
	return j->at < j->end && *j->at == c;
}

static bool
take_json_word(Json *j, const char *word)
{
	size_t		n = strlen(word);

	if ((size_t) (j->end - j->at) < n || memcmp(j->at, word, n) != 0)
		return false;
	j->at += n;
	return true;
}

/* The character of an escape behind its backslash, 0xff for what is not ASCII, -1 = bad. */
static int
take_escape(Json *j)
{
	static const char from[] = "\"\\/bfnrt";
	static const char to[] = "\"\\/\b\f\n\r\t";
	const char *known;
	unsigned	code = 0;

	if (j->at == j->end)
		return -1;
	if (*j->at != 'u')
	{
		known = *j->at == '\0' ? NULL : strchr(from, *j->at);
		j->at++;
		return known == NULL ? -1 : to[known - from];
	}
	j->at++;
	for (int i = 0; i < 4; i++, j->at++)
	{
		if (j->at == j->end || !isxdigit((unsigned char) *j->at))
			return -1;
		code = code << 4 | (unsigned) (isdigit((unsigned char) *j->at) ? *j->at - '0' :
									   (tolower((unsigned char) *j->at) - 'a' + 10));
	}
	return code > 0 && code < 0x80 ? (int) code : 0xff;
}

/*
 * A string.  What does not fit into out, or holds a character that is not ASCII,
 * becomes a text that equals no name of ours.
 */
static bool
take_string(Json *j, char out[WORD_BYTES])
{
	size_t		n = 0;
	bool		strange = false;

	if (!take_char(j, '"'))
		return false;
	while (j->at < j->end && *j->at != '"')
	{
		int			c = (unsigned char) *j->at++;

		if (c < 0x20)
			return false;
		if (c == '\\' && (c = take_escape(j)) < 0)
			return false;
		strange = strange || c >= 0x80 || n == WORD_BYTES - 1;
		if (!strange)
			out[n++] = (char) c;
	}
	out[n] = '\0';
	if (strange)
		memcpy(out, "?", 2);
	return take_char(j, '"');
}

static size_t
take_digits(Json *j)
{
	const char *start = j->at;

	while (j->at < j->end && isdigit((unsigned char) *j->at))
		j->at++;
	return (size_t) (j->at - start);
}

static bool
skip_number(Json *j)
{
	const char *start;
	size_t		digits;

	if (j->at < j->end && *j->at == '-')
		j->at++;
	start = j->at;
	digits = take_digits(j);
	if (digits == 0 || (digits > 1 && *start == '0'))
		return false;
	if (j->at < j->end && *j->at == '.')
	{
		j->at++;
		if (take_digits(j) == 0)
			return false;
	}
	if (j->at < j->end && (*j->at == 'e' || *j->at == 'E'))
	{
		j->at++;
		if (j->at < j->end && (*j->at == '+' || *j->at == '-'))
			j->at++;
		return take_digits(j) > 0;
	}
	return true;
}

static bool skip_value(Json *j, int depth);

/* Members of an object or elements of an array, up to their end. */
static bool
skip_members(Json *j, char close, int depth)
{
	char		name[WORD_BYTES];

	if (depth >= DEPTH_MAX)
		return false;
	if (take_char(j, close))
		return true;
	do
	{
		if (close == '}' && !(take_string(j, name) && take_char(j, ':')))
			return false;
		if (!skip_value(j, depth + 1))
			return false;
	} while (take_char(j, ','));
	return take_char(j, close);
}

static bool
skip_value(Json *j, int depth)
{
	char		text[WORD_BYTES];

	skip_json_blanks(j);
	if (j->at == j->end)
		return false;
	switch (*j->at)
	{
		case '"':
			return take_string(j, text);
		case '{':
			j->at++;
			return skip_members(j, '}', depth);
		case '[':
			j->at++;
			return skip_members(j, ']', depth);
		case 't':
			return take_json_word(j, "true");
		case 'f':
			return take_json_word(j, "false");
		case 'n':
			return take_json_word(j, "null");
		default:
			return skip_number(j);
	}
}

/* Seconds since 1970; a fraction is dropped, an exponent or a sign refused. */
static bool
take_time(Json *j, uint64_t *out)
{
	const char *start;
	const char *end;
	uint64_t	value = 0;

	skip_json_blanks(j);
	start = j->at;
	for (end = start; end < j->end && isdigit((unsigned char) *end); end++)
		value = end - start < TIME_DIGITS_MAX ? value * 10 + (uint64_t) (*end - '0') : UINT64_MAX;
	*out = value;
	if (end == start || end - start > TIME_DIGITS_MAX || !skip_number(j))
		return false;
	return memchr(start, 'e', (size_t) (j->at - start)) == NULL &&
		memchr(start, 'E', (size_t) (j->at - start)) == NULL;
}

/* ---- members ---- */

/* Members that matter, of the header and of the claims. */
typedef enum Member
{
	MEMBER_ALG, MEMBER_CRIT, MEMBER_B64, MEMBER_SCOPE, MEMBER_TENANT, MEMBER_EXP, MEMBER_NBF,
	MEMBER_AUD, MEMBERS
} Member;

static const char *const member_names[MEMBERS] = {
	"alg", "crit", "b64", "scope", "tenant_id", "exp", "nbf", "aud"
};

static Member
member_of(const char *name)
{
	int			i = 0;

	while (i < MEMBERS && strcmp(name, member_names[i]) != 0)
		i++;
	return (Member) i;
}

static const char *
take_alg(Json *j)
{
	char		text[WORD_BYTES];

	if (!peek(j, '"') || !take_string(j, text))
		return "its header's alg is not a string";
	return strcmp(text, "EdDSA") == 0 ? NULL : "its algorithm is not EdDSA";
}

static const char *
take_scope(Json *j, NcJwt *out)
{
	char		text[WORD_BYTES];

	if (!peek(j, '"') || !take_string(j, text))
		return "its scope is not a string";
	if (strcmp(text, "tenant") == 0)
		out->scope = NC_SCOPE_TENANT;
	else if (strcmp(text, "pageserverapi") == 0)
		out->scope = NC_SCOPE_PAGE_SERVER;
	else if (strcmp(text, "safekeeperdata") == 0)
		out->scope = NC_SCOPE_SAFEKEEPER;
	else if (strcmp(text, "metrics") == 0)
		out->scope = NC_SCOPE_METRICS;
	return NULL;
}

static const char *
take_tenant(Json *j, NcJwt *out)
{
	char		text[WORD_BYTES];

	if (peek(j, 'n') && take_json_word(j, "null"))
		return NULL;
	if (!peek(j, '"') || !take_string(j, text) || strlen(text) != NC_JWT_TENANT_DIGITS ||
		strspn(text, "0123456789abcdefABCDEF") != NC_JWT_TENANT_DIGITS)
		return "its tenant_id is not 32 hexadecimal digits";
	for (int i = 0; i <= NC_JWT_TENANT_DIGITS; i++)
		out->tenant_id[i] = (char) tolower((unsigned char) text[i]);
	return NULL;
}

/* A value that matters; header says which of the two objects it is in. */
static const char *
take_member(Json *j, Member member, bool header, NcJwt *out)
{
	switch (member)
	{
		case MEMBER_ALG:
			if (header)
				return take_alg(j);
			break;
		case MEMBER_CRIT:
		case MEMBER_B64:
			if (header)
				return "its header demands an extension that is not known here";
			break;
		case MEMBER_AUD:
			if (!header)
				return "it is meant for somebody else (aud)";
			break;
		case MEMBER_SCOPE:
			if (!header)
				return take_scope(j, out);
			break;
		case MEMBER_TENANT:
			if (!header)
				return take_tenant(j, out);
			break;
		case MEMBER_EXP:
			out->has_exp = out->has_exp || !header;
			if (!header)
				return take_time(j, &out->exp) ? NULL : "its exp is not a time";
			break;
		case MEMBER_NBF:
			out->has_nbf = out->has_nbf || !header;
			if (!header)
				return take_time(j, &out->nbf) ? NULL : "its nbf is not a time";
			break;
		case MEMBERS:
			break;
	}
	return skip_value(j, 0) ? NULL : "it is not valid JSON";
}

/* An object; required is the member that must be there. */
static const char *
parse_object(const uint8_t *text, size_t bytes, bool header, Member required, NcJwt *out)
{
	Json		j = {(const char *) text, (const char *) text + bytes};
	unsigned	seen = 0;
	const char *wrong;

	if (!take_char(&j, '{'))
		return "it is not a JSON object";
	do
	{
		char		name[WORD_BYTES];
		Member		member;

		if (!take_string(&j, name) || !take_char(&j, ':'))
			return "it is not valid JSON";
		member = member_of(name);
		if (member != MEMBERS && (seen & 1u << member) != 0)
			return "it says something twice";
		seen |= 1u << member;
		wrong = take_member(&j, member, header, out);
		if (wrong != NULL)
			return wrong;
	} while (take_char(&j, ','));
	if (!take_char(&j, '}'))
		return "it is not valid JSON";
	skip_json_blanks(&j);
	if (j.at != j.end)
		return "it is not valid JSON";
	if ((seen & 1u << required) == 0)
		return header ? "its header names no algorithm" : "it has no scope";
	return NULL;
}

/* ---- the whole ---- */

const char *
nc_jwt_parse(const char *token, size_t bytes, NcJwt *out)
{
	static const char *const not_a_token = "it is not a JSON web token";
	uint8_t		text[NC_JWT_BYTES_MAX];
	const char *end = token + bytes;
	const char *dot1;
	const char *dot2;
	size_t		n;
	const char *wrong;

	memset(out, 0, sizeof(*out));
	if (bytes == 0)
		return "it is empty";
	if (bytes > NC_JWT_BYTES_MAX)
		return "it is too long";
	dot1 = memchr(token, '.', bytes);
	dot2 = dot1 == NULL ? NULL : memchr(dot1 + 1, '.', (size_t) (end - dot1 - 1));
	if (dot2 == NULL || memchr(dot2 + 1, '.', (size_t) (end - dot2 - 1)) != NULL)
		return not_a_token;
	if (!base64url_decode(token, (size_t) (dot1 - token), text, sizeof(text), &n))
		return not_a_token;
	wrong = parse_object(text, n, true, MEMBER_ALG, out);
	if (wrong != NULL)
		return wrong;
	if (!base64url_decode(dot1 + 1, (size_t) (dot2 - dot1 - 1), text, sizeof(text), &n))
		return not_a_token;
	wrong = parse_object(text, n, false, MEMBER_SCOPE, out);
	if (wrong != NULL)
		return wrong;
	if (!base64url_decode(dot2 + 1, (size_t) (end - dot2 - 1), out->signature,
						  sizeof(out->signature), &n) || n != NC_JWT_SIGNATURE_BYTES)
		return "its signature is not one of Ed25519";
	out->signed_bytes = (size_t) (dot2 - token);
	return NULL;
}

const char *
nc_jwt_check_time(const NcJwt *jwt, uint64_t now_s)
{
	/* Times have 12 digits at most, so nothing here overflows. */
	if (jwt->has_exp && now_s > jwt->exp + NC_JWT_LEEWAY_S)
		return "it has expired";
	if (jwt->has_nbf && now_s + NC_JWT_LEEWAY_S < jwt->nbf)
		return "it is not valid yet";
	return NULL;
}

const char *
nc_jwt_check_scope(const NcJwt *jwt, NcJwtScope wide, const char *tenant)
{
	if (jwt->scope == wide && wide != NC_SCOPE_OTHER)
		return NULL;
	if (jwt->scope != NC_SCOPE_TENANT)
		return "its scope does not allow this";
	if (jwt->tenant_id[0] == '\0')
		return "its scope is tenant and it names no tenant_id";
	if (tenant[0] != '\0' && strcasecmp(tenant, jwt->tenant_id) != 0)
		return "it is for another tenant";
	return NULL;
}
