/*
 * cache_list.c
 *	  The background worker "neon_comm cache list": takes the list of the file cache's
 *	  pages elsewhere, to page servers and by the operator's command, and brings it back.
 *
 * One runs at a time.  Who asks for a save while one is at work has it go round
 * once more.  A command is a process group of its own: it is killed when it takes
 * too long, and when the worker ends before it.  What a command does wrong is
 * logged and changes nothing: the list here is replaced only by a whole one of
 * this cluster.
 */
#include "postgres.h"

#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "port.h"
#include "storage/copydir.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "utils/resowner.h"

#include "nc/base/clock.h"
#include "nc/boot/image.h"
#include "nc/filecache/filecache.h"
#include "nc/shared/settings.h"
#include "nc/shared/waits.h"
#include "nc/worker/cache_list.h"
#include "nc/worker/prewarm.h"

#include "list_gift.h"
#include "program.h"

PGDLLEXPORT void nc_cache_list_main(Datum arg);

extern char **environ;

/* A command that has not ended after this is killed. */
#define COMMAND_SECONDS_MAX 300

#define COMMAND_LOOK_MS 100

typedef enum Errand
{
	ERRAND_SEND,
	ERRAND_FETCH
} Errand;

/* nc_filecache->list_work */
enum
{
	LIST_IDLE = 0,
	LIST_AT_WORK,
	LIST_ONCE_MORE
};

static const NcProgram program = {
	.name = "neon_comm cache list",
	.main = "nc_cache_list_main",
	.starts = BgWorkerStart_RecoveryFinished,
	.once = true,
	.dies = true
};

static pid_t command_pid = 0;
static bool at_work = false;

/* ---- commands ---- */

/* %p becomes the path, %% a percent sign. */
static char *
fill_in(const char *command, const char *path)
{
	StringInfoData line;

	initStringInfo(&line);
	for (const char *at = command; *at != '\0'; at++)
	{
		if (at[0] == '%' && at[1] == 'p')
			appendStringInfoString(&line, path);
		else
			appendStringInfoChar(&line, *at);
		if (at[0] == '%' && (at[1] == 'p' || at[1] == '%'))
			at++;
	}
	return line.data;
}

static void
kill_command(void)
{
	int			status;

	if (command_pid <= 0)
		return;
	(void) kill(-command_pid, SIGKILL);
	while (waitpid(command_pid, &status, 0) < 0 && errno == EINTR)
		;
	command_pid = 0;
}

/* 0, or errno.  It has none of our signal handlers and heeds no signal of our group. */
static int
start_command(char *line)
{
	char	   *argv[] = {"sh", "-c", line, NULL};
	posix_spawnattr_t attr;
	sigset_t	none,
				all;
	int			err;

	sigemptyset(&none);
	sigfillset(&all);
	err = posix_spawnattr_init(&attr);
	if (err != 0)
		return err;
	(void) posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
	(void) posix_spawnattr_setpgroup(&attr, 0);
	(void) posix_spawnattr_setsigmask(&attr, &none);
	(void) posix_spawnattr_setsigdefault(&attr, &all);
	err = posix_spawn(&command_pid, "/bin/sh", NULL, &attr, argv, environ);
	(void) posix_spawnattr_destroy(&attr);
	if (err != 0)
		command_pid = 0;
	return err;
}

/* Until it has ended: its status, as waitpid() has it.  -1: it took too long, and was killed. */
static int
wait_for_command(void)
{
	uint64		until = nc_clock_us() + COMMAND_SECONDS_MAX * UINT64CONST(1000000);

	for (;;)
	{
		int			status;

		if (waitpid(command_pid, &status, WNOHANG) == command_pid)
		{
			command_pid = 0;
			return status;
		}
		if (nc_clock_us() > until)
		{
			kill_command();
			return -1;
		}
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, COMMAND_LOOK_MS,
						 nc_wait_event(NC_WAIT_CACHE_LIST));
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
}

static bool
run_command(const char *setting, const char *command, const char *path)
{
	char	   *line = fill_in(command, path);
	int			err = start_command(line);
	int			status;

	if (err != 0)
	{
		ereport(LOG, (errmsg("neon_comm: %s could not be run: %s", setting, strerror(err))));
		return false;
	}
	status = wait_for_command();
	if (status == 0)
		return true;
	ereport(LOG,
			(status < 0 ?
			 errmsg("neon_comm: %s did not end in %d s and was killed", setting, COMMAND_SECONDS_MAX) :
			 errmsg("neon_comm: %s failed: %s", setting, wait_result_to_str(status)),
			 errdetail("The command was: %s", line)));
	return false;
}

/* ---- errands ---- */

static void
send_list(void)
{
	char		err[NC_FILECACHE_ERROR_BYTES];

	if (nc_filecache_save(false, err, sizeof(err)) < 0)
	{
		ereport(LOG, (errmsg("neon_comm: the list of cached pages was not saved: %s", err)));
		return;
	}
	if (nc_list_gift_wanted())
		nc_list_gift_give();
	if (nc_guc_lfc_list_save_command[0] != '\0')
		(void) run_command("lfc_list_save_command", nc_guc_lfc_list_save_command,
						   nc_filecache_list_path());
}

/* Is there one of a boot image, and not where this compute looks for its own? */
static bool
is_laid_elsewhere(void)
{
	return access(NC_BOOT_CACHE_LIST, F_OK) == 0 &&
		strcmp(nc_filecache_list_path(), NC_BOOT_CACHE_LIST) != 0;
}

/* A list comes to `path`; false when there is none, and why was told. */
static bool
bring_list(char *path)
{
	char		laid[] = NC_BOOT_CACHE_LIST;

	if (is_laid_elsewhere())
	{
		copy_file(laid, path);
		(void) unlink(NC_BOOT_CACHE_LIST);
		return true;
	}
	return run_command("lfc_list_restore_command", nc_guc_lfc_list_restore_command, path);
}

static void
fetch_list(void)
{
	char		err[NC_FILECACHE_ERROR_BYTES + MAXPGPATH];
	char		path[MAXPGPATH];

	bool		from_image = is_laid_elsewhere();

	snprintf(path, sizeof(path), "%s.fetched", nc_filecache_list_path());
	(void) unlink(path);
	if (!bring_list(path))
		;
	else if (!nc_filecache_take_list(path, err, sizeof(err)))
		ereport(LOG,
				(errmsg("neon_comm: %s brought nothing of use: %s",
						from_image ? "the boot image" : "lfc_list_restore_command", err)));
	else if (!nc_prewarm_start(nc_guc_lfc_prewarm_workers, err, sizeof(err)))
		ereport(LOG, (errmsg("neon_comm: no prewarm at start: %s", err)));
	(void) unlink(path);
}

/* ---- the worker ---- */

static void
leave(int code, Datum arg)
{
	kill_command();
	if (at_work)
		atomic_store(&nc_filecache->list_work, LIST_IDLE);
}

/* Has nobody asked again meanwhile? */
static bool
is_over(void)
{
	uint32		work = LIST_AT_WORK;

	if (atomic_compare_exchange_strong(&nc_filecache->list_work, &work, LIST_IDLE))
	{
		at_work = false;
		return true;
	}
	atomic_store(&nc_filecache->list_work, LIST_AT_WORK);
	return false;
}

void
nc_cache_list_main(Datum arg)
{
	nc_program_begin(&program);
	CurrentResourceOwner = ResourceOwnerCreate(NULL, program.name);
	nc_program_turn_memory(&program);
	at_work = true;
	before_shmem_exit(leave, 0);
	if (DatumGetInt32(arg) == ERRAND_FETCH)
		fetch_list();
	else
	{
		do
			send_list();
		while (!is_over());
	}
	proc_exit(0);
}

/* ---- asking for it ---- */

/* True: nobody is at work, and the caller has to start it. */
static bool
claim(void)
{
	for (;;)
	{
		uint32		work = LIST_IDLE;

		if (atomic_compare_exchange_strong(&nc_filecache->list_work, &work, LIST_AT_WORK))
			return true;
		if (work == LIST_ONCE_MORE ||
			atomic_compare_exchange_strong(&nc_filecache->list_work, &work, LIST_ONCE_MORE))
			return false;
	}
}

static void
run_errand(Errand errand)
{
	if (!claim() || nc_program_start(&program, errand))
		return;
	atomic_store(&nc_filecache->list_work, LIST_IDLE);
	ereport(LOG,
			(errmsg("neon_comm: the list of cached pages neither went nor came"),
			 errdetail("No background worker is free."),
			 errhint("Raise max_worker_processes.")));
}

/* Does anybody want the list? */
static bool
is_wanted(void)
{
	return nc_guc_lfc_list_save_command[0] != '\0' || nc_list_gift_wanted();
}

void
nc_cache_list_send(void)
{
	if (is_wanted())
		run_errand(ERRAND_SEND);
}

void
nc_cache_list_turn(void)
{
	static uint64 last_us = 0;
	uint64		now = nc_clock_us();

	if (last_us == 0)
		last_us = now;
	if (nc_guc_lfc_list_save_interval == 0 || !is_wanted() ||
		nc_filecache == NULL || !nc_filecache_usable() ||
		now - last_us < nc_guc_lfc_list_save_interval * UINT64CONST(1000000))
		return;
	/* a list of a cache that is half warm is worse than the last one */
	if (atomic_load(&nc_filecache->prewarm.state) == NC_PREWARM_RUNNING)
		return;
	last_us = now;
	run_errand(ERRAND_SEND);
}

bool
nc_cache_list_fetch(void)
{
	if (nc_guc_lfc_list_restore_command[0] == '\0' && !is_laid_elsewhere())
		return false;
	run_errand(ERRAND_FETCH);
	return true;
}
