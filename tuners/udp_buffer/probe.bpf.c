// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * UDP sockets that lose datagrams for lack of room, and what they receive meanwhile. The limits are
 * variables of the kernel that no type information leads to, so the policy compares with them.
 */
#include "bpftune.h"

#define IPPROTO_UDP 17
#define IPPROTO_UDPLITE 136
#define ENOMEM 12

/* include/net/sock.h: the application chose the size itself. */
#define SOCK_RCVBUF_LOCK 2

/*
 * A socket that keeps losing datagrams is reported as often as the rate limit lets it at first, for
 * that is when a decision is due, and then once a second.
 */
#define FREQUENT_REPORTS 64
#define SELDOM_NS 1000000000ULL

/* What was lost for want of room in the socket's buffer, and in the memory for all of UDP. */
#define BUFFER 0
#define MEMORY 1

struct meter {
	u64 since_ns;
	u32 drops;
	u32 received;
	u32 reports;
	u32 pad;
};

/* A socket that has lost a datagram. */
struct watch {
	struct meter meters[2];
	/* Lost since the queue was last empty, and the most of that since the last report. */
	u64 lost_bytes;
	u64 burst_bytes;
	s32 sk_rcvbuf;
	u32 pad;
};

BPF_TABLE("lru_hash", u64, struct watch, watches, 8192);

/* Whether there is any watch at all: most systems never need to look for one. */
BPF_ARRAY(watching, u64, 1);

/* With another size it is a socket anew: the address was used again, or the application chose. */
static __always_inline struct watch *watch_socket(struct sock *sk)
{
	struct watch fresh = { .sk_rcvbuf = READ(sk, sk_rcvbuf) };
	u64 key = (u64)sk, now_ns;
	struct watch *watch;
	int zero = 0;
	u64 *any;

	watch = watches.lookup(&key);
	if (watch && watch->sk_rcvbuf == fresh.sk_rcvbuf)
		return watch;
	now_ns = bpf_ktime_get_ns();
	fresh.meters[BUFFER].since_ns = now_ns;
	fresh.meters[MEMORY].since_ns = now_ns;
	watches.update(&key, &fresh);
	any = watching.lookup(&zero);
	if (any)
		*any = 1;
	return watches.lookup(&key);
}

/*
 * Nothing is said of a socket from which nothing was received since the last report: its
 * application does not read, and no buffer changes that.
 */
static __always_inline bool is_due(struct meter *meter, u64 now_ns)
{
	u64 interval_ns = meter->reports < FREQUENT_REPORTS ? EVENT_INTERVAL_NS : SELDOM_NS;

	return meter->received && now_ns - meter->since_ns >= interval_ns;
}

/* Begin anew behind a report; what other CPUs counted since it was made up stays. */
static __always_inline void restart(struct meter *meter, u64 now_ns, u32 drops, u32 received)
{
	meter->since_ns = now_ns;
	meter->reports++;
	__sync_fetch_and_add(&meter->drops, -drops);
	__sync_fetch_and_add(&meter->received, -received);
}

/*
 * A datagram was lost because the socket's buffer is full. Runs for the socket on any number of
 * CPUs at once. Events of sockets with a size of their own and of those without have the same
 * fields.
 */
static __always_inline int lose(struct sock *sk, u32 truesize)
{
	struct event_sized_buffer_full e = {};
	struct watch *watch = watch_socket(sk);
	struct meter *meter;
	u64 now_ns;
	long sent;

	if (!watch)
		return 0;
	meter = &watch->meters[BUFFER];
	__sync_fetch_and_add(&meter->drops, 1);
	__sync_fetch_and_add(&watch->lost_bytes, truesize);
	now_ns = bpf_ktime_get_ns();
	if (!is_due(meter, now_ns))
		return 0;
	e.sk_rcvbuf = READ(sk, sk_rcvbuf);
	e.drops = meter->drops;
	e.received = meter->received;
	e.interval_ns = now_ns - meter->since_ns;
	e.burst_bytes = watch->burst_bytes;
	if (READ_BITS(sk, sk_userlocks) & SOCK_RCVBUF_LOCK)
		sent = SEND(sized_buffer_full, READ(sk, __sk_common.skc_net.net), &e);
	else
		sent = SEND(default_buffer_full, READ(sk, __sk_common.skc_net.net),
			    (struct event_default_buffer_full *)&e);
	if (!sent) {
		watch->burst_bytes = 0;
		restart(meter, now_ns, e.drops, e.received);
	}
	return 0;
}

/* The kernel has not yet freed the datagram. -ENOBUFS, on older kernels, is for exceed to count. */
PROBE(drop, int rc, struct sock *sk, struct sk_buff *skb)
{
	return rc == -ENOMEM ? lose(sk, READ(skb, truesize)) : 0;
}

PROBE(drop_unsized, int rc, struct sock *sk)
{
	return rc == -ENOMEM ? lose(sk, 0) : 0;
}

/* A datagram, or on a send something else, found all memory for its protocol in use. */
PROBE(exceed, struct sock *sk, s64 allocated)
{
	struct event_udp_memory_full e = {};
	u16 protocol = READ_BITS(sk, sk_protocol);
	struct watch *watch;
	struct meter *meter;
	u64 now_ns;

	if (protocol != IPPROTO_UDP && protocol != IPPROTO_UDPLITE)
		return 0;
	watch = watch_socket(sk);
	if (!watch)
		return 0;
	meter = &watch->meters[MEMORY];
	__sync_fetch_and_add(&meter->drops, 1);
	now_ns = bpf_ktime_get_ns();
	if (!is_due(meter, now_ns))
		return 0;
	e.allocated_pages = allocated;
	e.drops = meter->drops;
	e.received = meter->received;
	e.interval_ns = now_ns - meter->since_ns;
	if (!SEND(udp_memory_full, READ(sk, __sk_common.skc_net.net), &e))
		restart(meter, now_ns, e.drops, e.received);
	return 0;
}

/*
 * A datagram went to the application; with less than an eighth of the buffer left in use the reader
 * has caught up with the burst. Some hooks are there for every protocol, and a length below 0 is an
 * error, or a look that took nothing.
 */
PROBE(receive, struct sock *sk, int length)
{
	u64 key = (u64)sk;
	struct watch *watch;
	u16 protocol;
	int zero = 0;
	u64 *any;

	any = watching.lookup(&zero);
	if (!any || !*any || length < 0)
		return 0;
	protocol = READ_BITS(sk, sk_protocol);
	if (protocol != IPPROTO_UDP && protocol != IPPROTO_UDPLITE)
		return 0;
	watch = watches.lookup(&key);
	if (!watch)
		return 0;
	__sync_fetch_and_add(&watch->meters[BUFFER].received, 1);
	__sync_fetch_and_add(&watch->meters[MEMORY].received, 1);
	if (watch->lost_bytes &&
	    READ(sk, sk_backlog.rmem_alloc.counter) < READ(sk, sk_rcvbuf) >> 3) {
		if (watch->lost_bytes > watch->burst_bytes)
			watch->burst_bytes = watch->lost_bytes;
		watch->lost_bytes = 0;
	}
	return 0;
}
