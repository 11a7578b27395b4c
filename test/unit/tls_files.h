/*
 * tls_files.h
 *	  A certificate and its key in temporary files, for tests of TLS.
 */
#ifndef TLS_FILES_H
#define TLS_FILES_H

typedef struct TlsFiles
{
	char		cert[40];
	char		key[40];
	char		other_key[40];	/* does not belong to the certificate */
} TlsFiles;

extern void tls_files_make(TlsFiles *files);
extern void tls_files_remove(const TlsFiles *files);

#endif							/* TLS_FILES_H */
