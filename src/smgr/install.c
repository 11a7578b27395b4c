/*
 * install.c
 *	  Puts our operations into the storage-manager table of a stock server, or has them
 *	  put where a server with a front door asks for them.
 *
 * The table is a static const array in the RELRO segment of the main program
 * and dispatch goes through it, so it is found by the sequence of md's
 * exported functions, made writable, changed and protected again.  Exactly one
 * match is demanded; anything else ends the start with a message, before
 * anything was changed.  Runs once, in the postmaster, from _PG_init; children
 * inherit the change by fork.
 */
#include "postgres.h"

#include <link.h>
#include <sys/mman.h>
#include <unistd.h>

#include "miscadmin.h"
#include "utils/guc.h"

#include "nc/shared/settings.h"
#include "nc/smgr/abi.h"

typedef struct Segment
{
	char	   *start;
	size_t		bytes;
} Segment;

/* dl_iterate_phdr: the first object is the main program; takes its RELRO segment. */
static int
find_relro(struct dl_phdr_info *info, size_t size, void *arg)
{
	Segment    *out = arg;

	for (int i = 0; i < info->dlpi_phnum; i++)
	{
		const ElfW(Phdr) *ph = &info->dlpi_phdr[i];

		if (ph->p_type == PT_GNU_RELRO)
		{
			out->start = (char *) (info->dlpi_addr + ph->p_vaddr);
			out->bytes = ph->p_memsz;
		}
	}
	return 1;
}

/* Number of places in the segment that equal the row; the last one in *row. */
static int
find_row(const Segment *seg, void *const *row, int n, void ***at)
{
	void	  **p = (void **) TYPEALIGN(sizeof(void *), seg->start);
	void	  **end = (void **) (seg->start + seg->bytes);
	int			matches = 0;

	for (; p + n <= end; p++)
	{
		if (memcmp(p, row, n * sizeof(void *)) == 0)
		{
			matches++;
			*at = p;
		}
	}
	return matches;
}

static void
protect(void *at, size_t bytes, int prot)
{
	uintptr_t	page = sysconf(_SC_PAGESIZE);
	uintptr_t	start = (uintptr_t) at & ~(page - 1);
	uintptr_t	end = ((uintptr_t) at + bytes + page - 1) & ~(page - 1);

	if (mprotect((void *) start, end - start, prot) != 0)
		ereport(FATAL,
				(errmsg("neon_comm: could not change the protection of a table of the server: %m"),
				 errhint("The operating system forbids it (a hardened kernel or SELinux policy); allow mprotect for the server or use a server with a storage-manager hook.")));
}

static void
check_server_version(const NcSmgrAbi *abi)
{
	int			running = atoi(GetConfigOption("server_version_num", false, false));

	if (running == PG_VERSION_NUM)
		return;
	for (int i = 0; i < abi->ntested; i++)
		if (abi->tested[i] == running)
			return;
	ereport(nc_guc_allow_unknown_server ? WARNING : FATAL,
			(errmsg("neon_comm was built for server version %d and is not tested with %d",
					PG_VERSION_NUM, running),
			 errhint("Rebuild neon_comm against this server, or set neon_comm.allow_unknown_server = on to try anyway.")));
}

void
nc_relro_write(void *at, const void *what, size_t bytes)
{
	protect(at, bytes, PROT_READ | PROT_WRITE);
	memcpy(at, what, bytes);
	protect(at, bytes, PROT_READ);
}

/* Do calls for a relation, one that nobody has opened yet, arrive at our entries? */
static bool
calls_arrive(Oid relfilenumber)
{
	NcPgRel		nowhere = NC_PGREL_MAKE((&(NcRelKey) {1663, 1, relfilenumber, 0}));
	uint64		before = nc_smgr_close_calls;

	smgrclose(NC_PG_SMGROPEN(nowhere));
	return nc_smgr_close_calls != before;
}

static pg_noreturn void
fail_not_asked(const NcSmgrAbi *abi)
{
	ereport(FATAL,
			(errmsg("neon_comm: %s", abi->not_asked), errhint("%s", abi->not_asked_hint)));
}

static void
self_test(const NcSmgrAbi *abi)
{
	if (calls_arrive(1))
		return;
	if (abi->enter != NULL)
		fail_not_asked(abi);
	ereport(FATAL,
			(errmsg("neon_comm: the storage-manager table was changed but the server does not use it"),
			 errhint("This server binary is built differently from those neon_comm knows; use Debian's.")));
}

void
nc_smgr_check_installed(void)
{
	const NcSmgrAbi *abi = nc_smgr_abi();

	if (abi->enter != NULL && !calls_arrive(2))
		fail_not_asked(abi);
}

static void
swap_table(const NcSmgrAbi *abi)
{
	Segment		relro = {0};
	void	  **row = NULL;
	int			matches;

	dl_iterate_phdr(find_relro, &relro);
	matches = relro.start == NULL ? 0 : find_row(&relro, abi->theirs, abi->n, &row);
	if (matches != 1)
		ereport(FATAL,
				(errmsg("neon_comm: found the server's storage-manager table %d times, expected once",
						matches),
				 errdetail("Server version %s.", PG_VERSION),
				 errhint("Another library may have changed the table (check shared_preload_libraries), or this server binary is not one that neon_comm knows.")));

	nc_relro_write(row, abi->ours, abi->n * sizeof(void *));
}

void
nc_smgr_install(void)
{
	const NcSmgrAbi *abi = nc_smgr_abi();

	check_server_version(abi);
	if (abi->enter != NULL)
		abi->enter();
	else
		swap_table(abi);
	self_test(abi);
	if (abi->change_more != NULL)
		abi->change_more();
}
