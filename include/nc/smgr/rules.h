/*
 * nc/smgr/rules.h
 *	  Rules of the storage layer that a test build can switch off.
 *
 * A test proves a rule only if it fails without it.  Built with
 * -DNC_TEST_RULES, the setting neon_comm.test_rules_off names rules to ignore;
 * a release build has neither the setting nor the branches.
 */
#ifndef NC_SMGR_RULES_H
#define NC_SMGR_RULES_H

/* NC_RULE(id, "name"): one list for enum and names. */
#define NC_RULES(NC_RULE) \
	NC_RULE(COMMAND_ID, "command_id") /* keep pages with command ids of live xids */ \
	NC_RULE(OWN_HORIZON, "own_horizon") /* judge "live" by an own horizon */ \
	NC_RULE(LOW_LSN, "low_lsn") /* keep pages changed without WAL */ \
	NC_RULE(SEQUENCE, "sequence") /* keep sequences */ \
	NC_RULE(CYCLE_ID, "cycle_id") /* keep btree pages of a running VACUUM */ \
	NC_RULE(UNLOGGED, "unlogged") /* serve unlogged relations locally */ \
	NC_RULE(ALL_VISIBLE, "all_visible") /* date all-visible heap pages by now */ \
	NC_RULE(DATABASE, "database") /* settle whole-database statements */ \
	NC_RULE(RELATION_LSN, "relation_lsn") /* date relations at truncate, unlink, create */ \
	NC_RULE(STAGED_LSN, "staged_lsn") /* use no staged page that may have changed */ \
	NC_RULE(PAGE_LSN, "page_lsn") /* remember the LSN of dropped pages */ \
	NC_RULE(LOCAL_RESERVE, "local_reserve") /* entries for those who write others' pages */ \
	NC_RULE(LFC_WRITE, "lfc_write") /* an evicted page replaces its older version in the file cache */ \
	NC_RULE(LFC_FORGET, "lfc_forget") /* truncate, unlink, extend purge the file cache */ \
	NC_RULE(LFC_DATABASE, "lfc_database") /* whole-database statements purge the file cache */

#ifdef NC_TEST_RULES
typedef enum NcRule
{
#define NC_RULE_ENUM(id, name) NC_RULE_##id,
	NC_RULES(NC_RULE_ENUM)
#undef NC_RULE_ENUM
	NC_RULE_COUNT
} NcRule;

/* Bit per NcRule that is off; set by neon_comm.test_rules_off. */
extern unsigned nc_rules_off;

#define NC_RULE_ON(id) ((nc_rules_off >> NC_RULE_##id & 1) == 0)
#else
#define NC_RULE_ON(id) true
#endif

#endif							/* NC_SMGR_RULES_H */
