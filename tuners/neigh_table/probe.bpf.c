// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * How full the IPv4 and IPv6 neighbour tables are. One table serves all network namespaces; its
 * limits exist in the initial one only.
 */
#include "bpftune.h"

#define AF_INET 2
#define AF_INET6 10

/* Creations per time stamp. */
#define BURST 32
#define BURST_MASK (BURST - 1)

/* No second event leaves before that, so what fills up within it is as good as full. */
#define FORESIGHT_NS EVENT_INTERVAL_NS

/* Below that many entries nobody needs to know how many there are. */
#define FEW 64

struct table {
	u64 created;
	u64 refused;
	u64 mark_ns;
	u64 interval_ns;
	/* Entries when the last removal was reported, 0: none since it was told that the table
	 * fills again. */
	s64 told;
};

/* arp_tbl and nd_tbl */
BPF_ARRAY(tables, struct table, 2);

/* NULL for the tables of other protocols. */
static __always_inline struct table *find_table(struct neigh_table *tbl)
{
	u32 family = (u32)READ(tbl, family);
	int index = family == AF_INET6;

	if (family != AF_INET && family != AF_INET6)
		return NULL;
	return tables.lookup(&index);
}

static __always_inline u32 read_gc_entries(struct neigh_table *tbl)
{
#ifdef HAVE_neigh_table__gc_entries_counter
	return READ(tbl, gc_entries.counter);
#else
	return READ(tbl, entries.counter);
#endif
}

/*
 * Count a creation and, at every 32nd, take the time of the last 32: the pace of a burst at the
 * price of one clock reading in 32. CPUs may race here, which makes the pace a little wrong, no
 * more. True when at that pace the table is full before another event could say so. Below
 * gc_thresh1 the kernel does not even collect garbage, so there it is too early to worry.
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

#define SILENT 0
#define FILLING 1
#define REFILLED 2

/*
 * An entry was just allocated and counted, or refused: then `made` is 0. Hooks at the entry of the
 * function cannot tell and pass something that is never 0. The pace in the event is that of the
 * last 32 creations, or slower if they are some time ago. What was reported as mostly empty is
 * taken back as soon as there are twice as many, near a limit or not. Both families' events have
 * the same fields.
 */
static __always_inline int look_at_table(struct neigh_table *tbl, struct net_device *dev, u64 made,
					 struct event_arp_table_filling *e)
{
	struct table *table = find_table(tbl);
	s64 entries, thresh1, thresh3;
	int found = SILENT;
	u64 age_ns;

	if (!table || !dev)
		return SILENT;
	if (!made)
		__sync_fetch_and_add(&table->refused, 1);
	entries = READ(tbl, entries.counter);
	thresh1 = READ(tbl, gc_thresh1);
	thresh3 = READ(tbl, gc_thresh3);
	if (fills_soon(table, entries, thresh1, thresh3) || near_full(entries, thresh3))
		found = FILLING;
	if (table->told && entries > 2 * table->told)
		found = REFILLED;
	if (found == SILENT)
		return SILENT;
	age_ns = bpf_ktime_get_ns() - table->mark_ns;
	e->ifindex = READ(dev, ifindex);
	e->entries = entries;
	e->gc_entries = read_gc_entries(tbl);
	e->gc_thresh[0] = thresh1;
	e->gc_thresh[1] = READ(tbl, gc_thresh2);
	e->gc_thresh[2] = thresh3;
	e->created = BURST;
	e->interval_ns = age_ns > table->interval_ns ? age_ns : table->interval_ns;
	e->refused = table->refused;
	return found;
}

/* Only then: what was lost on the way is told again. */
static __always_inline void refill_is_told(struct neigh_table *tbl)
{
	struct table *table = find_table(tbl);

	if (table)
		table->told = 0;
}

PROBE(create_arp, struct neigh_table *tbl, struct net_device *dev, u64 made)
{
	struct event_arp_table_filling e = {};
	int found;

	if ((u32)READ(tbl, family) != AF_INET)
		return 0;
	found = look_at_table(tbl, dev, made, &e);
	if (found == REFILLED && !SEND_ALWAYS(arp_table_filling, READ(dev, nd_net.net), &e))
		refill_is_told(tbl);
	else if (found == FILLING)
		SEND(arp_table_filling, READ(dev, nd_net.net), &e);
	return 0;
}

PROBE(create_nd, struct neigh_table *tbl, struct net_device *dev, u64 made)
{
	struct event_nd_table_filling e = {};
	int found;

	if ((u32)READ(tbl, family) != AF_INET6)
		return 0;
	found = look_at_table(tbl, dev, made, (struct event_arp_table_filling *)&e);
	if (found == REFILLED && !SEND_ALWAYS(nd_table_filling, READ(dev, nd_net.net), &e))
		refill_is_told(tbl);
	else if (found == FILLING)
		SEND(nd_table_filling, READ(dev, nd_net.net), &e);
	return 0;
}

/* Were the limits raised by us? The supervisor notes global tunables under cookie 0. */
static __always_inline bool limits_changed(void)
{
	struct place place = { .tuner = TUNER_ID };

	return shared_changed.lookup(&place);
}

/* `value` is no more than one step of `limit`. */
static __always_inline bool is_small_part(s64 value, s64 limit)
{
	int zero = 0;
	struct settings *settings = shared_settings.lookup(&zero);

	return settings && value <= limit >> (settings->shift & 63);
}

/*
 * An entry is on its way out; the table still counts it. A whole table can go within one event
 * interval, and how far it went matters: each halving is told whatever the rate limit says. Where
 * creations pass no hook nothing would tell that the table fills again, so nothing is told here.
 */
PROBE(release, struct neighbour *n)
{
	struct neigh_table *tbl = READ(n, tbl);
	struct net_device *dev = READ(n, dev);
	struct event_arp_table_emptied e = {};
	struct table *table;
	struct net *net;
	bool ipv4, halved;
	s64 thresh3;

	if (!limits_changed())
		return 0;
	table = find_table(tbl);
	if (!table || !table->created || !dev)
		return 0;
	e.entries = READ(tbl, entries.counter);
	thresh3 = READ(tbl, gc_thresh3);
	if (!is_small_part(e.entries, thresh3))
		return 0;
	e.gc_thresh[0] = READ(tbl, gc_thresh1);
	e.gc_thresh[1] = READ(tbl, gc_thresh2);
	e.gc_thresh[2] = thresh3;
	e.ifindex = READ(dev, ifindex);
	net = READ(dev, nd_net.net);
	halved = !table->told || (table->told > FEW && 2 * e.entries <= table->told);
	ipv4 = (u32)READ(tbl, family) == AF_INET;
	if (halved) {
		table->told = e.entries > FEW ? e.entries : FEW;
		if (ipv4)
			SEND_ALWAYS(arp_table_emptied, net, &e);
		else
			SEND_ALWAYS(nd_table_emptied, net, (struct event_nd_table_emptied *)&e);
	} else if (ipv4) {
		SEND(arp_table_emptied, net, &e);
	} else {
		SEND(nd_table_emptied, net, (struct event_nd_table_emptied *)&e);
	}
	return 0;
}
