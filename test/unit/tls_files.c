/*
 * tls_files.c
 *	  See tls_files.h.
 */
#include "tls_files.h"

#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static FILE *
make_file(char *path, size_t bytes)
{
	int			fd;

	snprintf(path, bytes, "/tmp/nc_tls_XXXXXX");
	fd = mkstemp(path);
	if (fd < 0)
		abort();
	return fdopen(fd, "w");
}

static void
write_key(char *path, size_t bytes, EVP_PKEY *key)
{
	FILE	   *f = make_file(path, bytes);

	if (PEM_write_PrivateKey(f, key, NULL, NULL, 0, NULL, NULL) != 1)
		abort();
	fclose(f);
}

void
tls_files_make(TlsFiles *files)
{
	EVP_PKEY   *key = EVP_EC_gen("P-256");
	EVP_PKEY   *other = EVP_EC_gen("P-256");
	X509	   *cert = X509_new();
	FILE	   *f;

	X509_gmtime_adj(X509_getm_notBefore(cert), 0);
	X509_gmtime_adj(X509_getm_notAfter(cert), 3600);
	X509_set_pubkey(cert, key);
	X509_NAME_add_entry_by_txt(X509_get_subject_name(cert), "CN", MBSTRING_ASC,
							   (const unsigned char *) "test", -1, -1, 0);
	X509_set_issuer_name(cert, X509_get_subject_name(cert));
	if (X509_sign(cert, key, EVP_sha256()) <= 0)
		abort();
	f = make_file(files->cert, sizeof(files->cert));
	PEM_write_X509(f, cert);
	fclose(f);
	write_key(files->key, sizeof(files->key), key);
	write_key(files->other_key, sizeof(files->other_key), other);
	X509_free(cert);
	EVP_PKEY_free(key);
	EVP_PKEY_free(other);
}

void
tls_files_remove(const TlsFiles *files)
{
	unlink(files->cert);
	unlink(files->key);
	unlink(files->other_key);
}
