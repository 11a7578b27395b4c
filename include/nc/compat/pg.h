/*
 * nc/compat/pg.h
 *	  Names that differ between the server versions we know, and key conversion.
 *
 * Version differences live here and in src/smgr/abi_NN.c, never in bodies.
 */
#ifndef NC_COMPAT_PG_H
#define NC_COMPAT_PG_H

#include "postgres.h"

#include "catalog/pg_class_d.h"
#include "common/relpath.h"
#include "storage/fd.h"
#include "storage/smgr.h"

#include "nc/base/key.h"
#include "nc/base/units.h"

#if PG_VERSION_NUM >= 160000
#include "storage/relfilelocator.h"
#include "utils/relfilenumbermap.h"
#define NC_RELATION_BY_NUMBER(spc, number) RelidByRelfilenumber(spc, number)
#define NC_RELN_SPC(reln) ((reln)->smgr_rlocator.locator.spcOid)
#define NC_RELN_DB(reln) ((reln)->smgr_rlocator.locator.dbOid)
#define NC_RELN_REL(reln) ((reln)->smgr_rlocator.locator.relNumber)
#define NC_RELN_BACKEND(reln) ((reln)->smgr_rlocator.backend)
typedef RelFileLocator NcPgRel;
typedef RelFileLocatorBackend NcPgRelBackend;
#define NC_PGREL_BACKEND_KEY(r, f) \
	((NcRelKey) {(r).locator.spcOid, (r).locator.dbOid, (r).locator.relNumber, (uint32_t) (f)})
#define NC_PGREL_KEY(r, f) ((NcRelKey) {(r).spcOid, (r).dbOid, (r).relNumber, (uint32_t) (f)})
#define NC_FILETAG_REL(tag) ((tag)->rlocator)
#define NC_PGREL_MAKE(k) ((NcPgRel) {.spcOid = (k)->spc, .dbOid = (k)->db, .relNumber = (k)->rel})
#define NC_BUFFER_TAG(tag, pgrel, fork, block) InitBufferTag(&(tag), &(pgrel), fork, block)
#else
#include "storage/relfilenode.h"
#include "utils/relfilenodemap.h"
#define NC_RELATION_BY_NUMBER(spc, number) RelidByRelfilenode(spc, number)
#define NC_RELN_SPC(reln) ((reln)->smgr_rnode.node.spcNode)
#define NC_RELN_DB(reln) ((reln)->smgr_rnode.node.dbNode)
#define NC_RELN_REL(reln) ((reln)->smgr_rnode.node.relNode)
#define NC_RELN_BACKEND(reln) ((reln)->smgr_rnode.backend)
typedef RelFileNode NcPgRel;
typedef RelFileNodeBackend NcPgRelBackend;
#define NC_PGREL_BACKEND_KEY(r, f) \
	((NcRelKey) {(r).node.spcNode, (r).node.dbNode, (r).node.relNode, (uint32_t) (f)})
#define NC_PGREL_KEY(r, f) ((NcRelKey) {(r).spcNode, (r).dbNode, (r).relNode, (uint32_t) (f)})
#define NC_FILETAG_REL(tag) ((tag)->rnode)
#define NC_PGREL_MAKE(k) ((NcPgRel) {.spcNode = (k)->spc, .dbNode = (k)->db, .relNode = (k)->rel})
#define NC_BUFFER_TAG(tag, pgrel, fork, block) INIT_BUFFERTAG(tag, pgrel, fork, block)
#endif

#if PG_VERSION_NUM >= 170000
#define NC_NO_BACKEND INVALID_PROC_NUMBER
#define NC_PROC_LXID(proc) ((proc)->vxid.lxid)
#else
#define NC_NO_BACKEND InvalidBackendId
#define NC_PROC_LXID(proc) ((proc)->lxid)
#endif
#define NC_PGREL_BACKEND_IS_TEMP(r) ((r).backend != NC_NO_BACKEND)

/* Who owns a temporary relation. */
#if PG_VERSION_NUM >= 170000
typedef ProcNumber NcPgBackend;
#else
typedef BackendId NcPgBackend;
#endif

/* Servers with a front door (docs/interposition.md) are told whether a relation is logged, and say it again. */
#ifdef NC_FRONT_DOOR
#define NC_PG_SMGROPEN(rel) smgropen(rel, NC_NO_BACKEND, 0)
#define NC_RELN_IS_SAID_TO_BE_UNLOGGED(reln) ((reln)->smgr_relpersistence == RELPERSISTENCE_UNLOGGED)
#else
#define NC_PG_SMGROPEN(rel) smgropen(rel, NC_NO_BACKEND)
#define NC_RELN_IS_SAID_TO_BE_UNLOGGED(reln) false
#endif

/* From 16 on md wants pages where direct I/O could write them; a server with assertions insists. */
#if PG_VERSION_NUM < 160000
typedef PGAlignedBlock PGIOAlignedBlock;
#endif

/* 18 has the prefix for functions that do not return, and no longer the attribute behind them. */
#ifndef pg_noreturn
#define pg_noreturn __attribute__((noreturn))
#endif

/* Private to md.c in every version we know; the same two fields since 1996. */
typedef struct NcMdfdVec
{
	File		vfd;
	BlockNumber segno;
} NcMdfdVec;

/* The open segments of a fork, as md.c keeps them. */
#define NC_MD_SEG(reln, fork, seg) (((NcMdfdVec *) (reln)->md_seg_fds[fork])[seg].vfd)

/* Name of a fork's first segment below the data directory, into MAXPGPATH bytes. */
static inline void
nc_pg_fork_path(const NcRelKey *rel, ForkNumber fork, char *path)
{
#if PG_VERSION_NUM >= 180000
	strlcpy(path, GetRelationPath(rel->db, rel->spc, rel->rel, NC_NO_BACKEND, fork).str, MAXPGPATH);
#else
	char	   *made = GetRelationPath(rel->db, rel->spc, rel->rel, NC_NO_BACKEND, fork);

	strlcpy(path, made, MAXPGPATH);
	pfree(made);
#endif
}

static inline NcRelKey
nc_reln_key(SMgrRelation reln, ForkNumber fork)
{
	return (NcRelKey) {NC_RELN_SPC(reln), NC_RELN_DB(reln), NC_RELN_REL(reln), (uint32_t) fork};
}

/* Index of the calling process among all PGPROCs. */
#if PG_VERSION_NUM >= 170000
#define NC_MY_PROC_INDEX() ((uint32) MyProcNumber)
#define NC_PROC_INDEX(proc) ((uint32) GetNumberFromPGProc(proc))
#else
#define NC_MY_PROC_INDEX() ((uint32) MyProc->pgprocno)
#define NC_PROC_INDEX(proc) ((uint32) (proc)->pgprocno)
#endif

/* Processes that can own a ring: backends and auxiliary ones, not prepared transactions. */
#define NC_PROC_COUNT() ((uint32) (MaxBackends + NUM_AUXILIARY_PROCS))

#endif							/* NC_COMPAT_PG_H */
