// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * How many IPv6 destination entries a namespace has, against net.ipv6.route.max_size.
 */
#include "bpftune.h"

/*
 * A lookup in an IPv6 routing table, of which new entries are the consequence; or, one rung down, a
 * collection of old ones, which the kernel begins well below the limit. The count is without what
 * single CPUs have not reported yet: some 32 entries each, nothing against a limit of thousands.
 */
PROBE(lookup, struct net *net)
{
	struct event_routes_near_limit e = {};

	e.limit = READ(net, ipv6.sysctl.ip6_rt_max_size);
	e.entries = READ(net, ipv6.ip6_dst_ops.pcpuc_entries.count);
	if (near_full(e.entries, e.limit) && sampled(lookup))
		SEND(routes_near_limit, net, &e);
	return 0;
}
