// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * How much memory the fragments of unfinished datagrams take, per namespace and address family. The
 * kernel counts that itself, in the struct fqdir that also holds the limit.
 */
#include "bpftune.h"

/* Network byte order, as in skb->protocol. */
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define ETH_P_IP 0x0008
#define ETH_P_IPV6 0xdd86
#else
#define ETH_P_IP 0x0800
#define ETH_P_IPV6 0x86dd
#endif

#ifdef HAVE_net__ipv6_fqdir
#define IPV6_FQDIR(net) READ(net, ipv6.fqdir)
#else
#define IPV6_FQDIR(net) NULL
#endif

/* A limit of 0 is an administrator who wants no reassembly. */
static __always_inline bool is_filling(struct fqdir *fqdir)
{
	s64 limit = READ(fqdir, high_thresh);

	return limit > 0 && near_full(READ(fqdir, mem.counter), limit);
}

/*
 * The directory is looked up from the namespace again: 6LoWPAN and connection tracking have fqdirs
 * of their own, with other limits. Both families' events have the same fields.
 */
static __always_inline void tell(struct fqdir *fqdir)
{
	struct event_ipv4_fragments_fill e = {};
	struct net *net = READ(fqdir, net);

	if (!net)
		return;
	e.memory_bytes = READ(fqdir, mem.counter);
	e.high_thresh = READ(fqdir, high_thresh);
	if (READ(net, ipv4.fqdir) == fqdir)
		SEND(ipv4_fragments_fill, net, &e);
	else if (IPV6_FQDIR(net) == fqdir)
		SEND(ipv6_fragments_fill, net, (struct event_ipv6_fragments_fill *)&e);
}

/*
 * A fragment looks for its datagram. The kernel is about to drop it if the memory is above the
 * limit, whether the datagram is there already or not.
 */
PROBE(fill, struct fqdir *fqdir)
{
	if (is_filling(fqdir) && sampled(fill))
		tell(fqdir);
	return 0;
}

/*
 * Any packet, fragment or not: the look at its namespace's counter is cheaper than the look at its
 * header. Of a dropped packet the device may be something else, if it waited in a reassembly queue:
 * its place is used for the links there. Whatever is read then, it has no namespace that leads back
 * to the same fqdir.
 */
PROBE(packet, struct sk_buff *skb)
{
	u16 protocol = READ(skb, protocol);
	struct fqdir *fqdir;
	struct net *net;

	if (protocol != ETH_P_IP && protocol != ETH_P_IPV6)
		return 0;
	net = READ(READ(skb, dev), nd_net.net);
	fqdir = protocol == ETH_P_IP ? READ(net, ipv4.fqdir) : IPV6_FQDIR(net);
	if (fqdir && is_filling(fqdir) && READ(fqdir, net) == net && sampled(fill))
		tell(fqdir);
	return 0;
}
