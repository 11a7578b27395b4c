/*
 * list_gift.h
 *	  Page servers get the list of the file cache's pages.  Private to src/worker.
 */
#ifndef NC_WORKER_LIST_GIFT_H
#define NC_WORKER_LIST_GIFT_H

/* Are there page servers that would keep it, and shall they? */
extern bool nc_list_gift_wanted(void);

/* Gives each of them the list as it is on disk.  By the cache list worker; logs what fails. */
extern void nc_list_gift_give(void);

#endif							/* NC_WORKER_LIST_GIFT_H */
