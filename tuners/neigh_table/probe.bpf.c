// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * How full the IPv4 and IPv6 neighbour tables are. One table serves all network namespaces; its
 * limits exist in the initial one only.
 */
#include "bpftune.h"

#define AF_INET 2
#define AF_INET6 10

/* Creations per time stamp. */
#define BURST 64
#define BURST_MASK (BURST - 1)

/* No second event leaves before that, so what fills up within it is as good as full. */
#define FORESIGHT_NS EVENT_INTERVAL_NS

struct table {
	u64 created;
	u64 refused;
	u64 mark_ns;
	u64 interval_ns;
};

/* arp_tbl and nd_tbl */
BPF_ARRAY(tables, struct table, 2);

/* -1 for the tables of other protocols */
static __always_inline int table_index(struct neigh_table *tbl)
{
	u32 family = (u32)READ(tbl, family);

	return family == AF_INET ? 0 : family == AF_INET6 ? 1 : -1;
}

static __always_inline u32 gc_entries(struct neigh_table *tbl)
{
#ifdef HAVE_neigh_table__gc_entries_counter
	return READ(tbl, gc_entries.counter);
#else
	return READ(tbl, entries.counter);
#endif
}

/*
 * Count a creation and, at every 64th, take the time of the last 64: the pace of a burst at the price of
 * one clock reading in 64. CPUs may race here, which makes the pace a little wrong, no more. True
 * when at that pace the table is full before another event could say so.
 */
static __always_inline bool fills_soon(struct table *table, s64 entries, s64 thresh1, s64 thresh3)
{
	u64 now_ns;

	__sync_fetch_and_add(&table->created, 1);
	if (table->created & BURST_MASK)
		return false;
	now_ns = bpf_ktime_get_ns();
	table->interval_ns = now_ns - table->mark_ns;
	table->mark_ns = now_ns;
	if (!table->interval_ns || entries < thresh1)
		return false;
	return entries + BURST * FORESIGHT_NS / table->interval_ns >= thresh3;
}

#define FILL_EVENT(event)                                    \
	do {                                                 \
		(event)->family = READ(tbl, family);         \
		(event)->ifindex = READ(dev, ifindex);       \
		(event)->entries = entries;                  \
		(event)->gc_thresh[0] = READ(tbl, gc_thresh1); \
		(event)->gc_thresh[1] = READ(tbl, gc_thresh2); \
		(event)->gc_thresh[2] = thresh3;             \
	} while (0)

/*
 * An entry was just allocated and counted, or refused: then `made` is 0. Hooks at the entry of the
 * function cannot tell and pass something that is never 0. The pace in the event is that of the
 * last 64 creations, or slower if they are some time ago.
 */
PROBE(create, struct neigh_table *tbl, struct net_device *dev, u64 made)
{
	struct event_arp_table_filling e = {};
	struct table *table;
	s64 entries, thresh3;
	int index = table_index(tbl);
	u64 age_ns;

	if (index < 0 || !dev)
		return 0;
	table = tables.lookup(&index);
	if (!table)
		return 0;
	if (!made)
		__sync_fetch_and_add(&table->refused, 1);
	entries = READ(tbl, entries.counter);
	thresh3 = READ(tbl, gc_thresh3);
	if (!fills_soon(table, entries, READ(tbl, gc_thresh1), thresh3) && !near_full(entries, thresh3))
		return 0;
	FILL_EVENT(&e);
	e.gc_entries = gc_entries(tbl);
	e.refused = table->refused;
	e.created = BURST;
	age_ns = bpf_ktime_get_ns() - table->mark_ns;
	e.interval_ns = age_ns > table->interval_ns ? age_ns : table->interval_ns;
	if (index == 0)
		SEND(arp_table_filling, READ(dev, nd_net.net), &e);
	else
		SEND(nd_table_filling, READ(dev, nd_net.net), (struct event_nd_table_filling *)&e);
	return 0;
}

/* Were the limits of the tables raised by us? Global tunables are noted under cookie 0. */
static __always_inline bool limits_changed(void)
{
	struct place place = { .tuner = TUNER_ID };

	return shared_changed.lookup(&place);
}

/* An entry is on its way out; the table still counts it. */
PROBE(release, struct neighbour *n)
{
	struct event_arp_table_emptied e = {};
	struct neigh_table *tbl;
	struct net_device *dev;
	s64 entries, thresh3;
	int zero = 0, index;
	struct settings *settings;

	if (!limits_changed())
		return 0;
	settings = shared_settings.lookup(&zero);
	tbl = READ(n, tbl);
	dev = READ(n, dev);
	index = table_index(tbl);
	if (!settings || index < 0 || !dev)
		return 0;
	entries = READ(tbl, entries.counter);
	thresh3 = READ(tbl, gc_thresh3);
	if (entries > thresh3 >> (settings->shift & 63))
		return 0;
	FILL_EVENT(&e);
	if (index == 0)
		SEND(arp_table_emptied, READ(dev, nd_net.net), &e);
	else
		SEND(nd_table_emptied, READ(dev, nd_net.net), (struct event_nd_table_emptied *)&e);
	return 0;
}
