/*
 * identity.c
 *	  Who this compute is, as every process sees it; src/ext/identity.c made it so
 *	  before there was any.
 */
#include "postgres.h"

#include "nc/shared/identity.h"

NcIdentityShared *nc_identity = NULL;

void
nc_identity_options(char *to, Size bytes)
{
	char		text[NC_READER_TEXT];

	to[0] = '\0';
	if (nc_identity != NULL)
		snprintf(to, bytes, "-c " NC_READER_SETTING "=%s",
				 nc_reader_text(&nc_identity->reader, text));
}
