// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Sockets that the largest allowed buffer holds back: receivers through tcp_rcv_space_adjust,
 * senders through the per-RTT callback of sockops or, where that is refused, a sample of the
 * segments that come in. On the way: the memory that all TCP sockets hold together, and handshakes
 * that pile up at listeners.
 */
#include "bpftune.h"

/* include/net/sock.h: the application set the size itself, the limit does not concern it. */
#define SOCK_SNDBUF_LOCK 1
#define SOCK_RCVBUF_LOCK 2

#define IPPROTO_TCP 6

/* include/linux/net.h: a bit of struct socket's flags. */
#define SOCK_NOSPACE 2

/* CONFIG_HZ is 100 at least. */
#define LONGEST_JIFFY_US 10000

#define RECEIVING 0
#define SENDING 1

/* Half of the buffer is payload: what the kernel assumes before it has seen a segment. */
#define RATIO_ASSUMED 128

/* A mark older than this tells about another time. */
#define STALE_NS 10000000000ULL

struct mark_key {
	u64 sk;
	u32 direction;
	u32 pad;
};

/* Where a socket stood at its last sample. */
struct mark {
	u64 bytes;
	u64 time_ns;
	u32 limited_jiffies;
	u32 pad;
};

struct sample_out {
	u64 moved_bytes;
	u64 interval_ns;
};

BPF_TABLE("lru_hash", struct mark_key, struct mark, marks, 8192);

/* A shortage of memory is told of again when it is this much worse, or this much later. */
#define WORSE_SHIFT 4
#define STILL_NS 1000000000ULL

/* What was told last about all of TCP's memory; no pages: nothing that still holds. */
#define NEAR_PRESSURE 0
#define NEAR_EXHAUSTION 1

struct told {
	u64 time_ns;
	s64 pages;
};

BPF_ARRAY(tolds, struct told, 2);

/* The namespaces, by cookie, that were told of a shortage and not yet of its end, and when. */
BPF_TABLE("lru_hash", u64, u64, short_of_memory, 4096);

/* A peer that has not finished its handshake after that time gets another answer, see
 * PROBE(listen). */
#define HANDSHAKE_NS 1000000000ULL

/* Handshakes that a namespace's listeners began since a moment at most HANDSHAKE_NS ago. */
struct handshakes {
	u64 since_ns;
	s32 unfinished;
	u32 pad;
};

BPF_TABLE("lru_hash", u64, struct handshakes, begun, 4096);

/*
 * NULL where the socket has none that tells about the present. An address can belong to a new
 * socket by now, whose counters are then behind the mark.
 */
static __always_inline struct mark *find_mark(struct mark_key *key, struct mark *now)
{
	struct mark *mark = marks.lookup(key);

	if (!mark || now->bytes < mark->bytes || now->limited_jiffies < mark->limited_jiffies ||
	    now->time_ns - mark->time_ns > STALE_NS)
		return NULL;
	return mark;
}

/*
 * What the socket moved since its last sample, exactly; both 0 if it had none. False while less
 * than two round trips have passed: windows come in bursts, less than that says nothing.
 */
static __always_inline bool measure(struct mark_key *key, struct mark *now, u32 rtt_us,
				    struct sample_out *out)
{
	struct mark *mark = find_mark(key, now);
	u64 interval_ns;

	if (!mark) {
		marks.update(key, now);
		return true;
	}
	interval_ns = now->time_ns - mark->time_ns;
	if (interval_ns < EVENT_INTERVAL_NS || interval_ns < 2000ULL * rtt_us)
		return false;
	out->moved_bytes = now->bytes - mark->bytes;
	out->interval_ns = interval_ns;
	*mark = *now;
	return true;
}

static __always_inline s64 allocated_pages(struct sock *sk)
{
	struct proto *prot = READ(sk, __sk_common.skc_prot);

	return READ(READ(prot, memory_allocated), counter);
}

static __always_inline bool is_worse(int kind, s64 pages, s64 limit, u64 now_ns)
{
	struct told *told = tolds.lookup(&kind);

	return told && (now_ns - told->time_ns >= STILL_NS ||
			pages >= told->pages + (limit >> WORSE_SHIFT));
}

static __always_inline void remember(int kind, s64 pages, u64 now_ns)
{
	struct told *told = tolds.lookup(&kind);

	if (told) {
		told->time_ns = now_ns;
		told->pages = pages;
	}
}

/* One namespace's part in a shortage. All events about memory have the same fields. */
static __always_inline void tell_shortage(struct net *net, struct event_metrics_unsaved *e,
					  u64 now_ns)
{
	u64 cookie = READ(net, net_cookie);
	u64 *told_ns = short_of_memory.lookup(&cookie);

	if (told_ns && now_ns - *told_ns < STILL_NS)
		return;
	if (!SEND(metrics_unsaved, net, e))
		short_of_memory.update(&cookie, &now_ns);
}

/* TCP holds so little that the kernel itself would end a memory pressure. */
static __always_inline void tell_ease(struct net *net, struct event_metrics_saved *e)
{
	struct event_large_pages_allowed *global = (struct event_large_pages_allowed *)e;
	u64 cookie = READ(net, net_cookie);
	int kind = NEAR_EXHAUSTION;
	struct told *told;

	told = tolds.lookup(&kind);
	if (!told || !told->time_ns)
		return;
	if (told->pages && !SEND(large_pages_allowed, net, global))
		told->pages = 0;
	if (short_of_memory.lookup(&cookie) && !SEND(metrics_saved, net, e))
		short_of_memory.delete(&cookie);
}

/*
 * How much memory all TCP sockets hold, at a moment when one of them does something. CPUs keep up
 * to 1 MiB each of that count to themselves, so it may be a little off, and below 0.
 */
static __always_inline void look_at_memory(struct sock *sk, struct net *net)
{
	struct event_memory_near_pressure e = {};
	u64 now_ns;

	e.allocated_pages = allocated_pages(sk);
	e.tcp_mem[0] = TUNABLE(net_ipv4_tcp_mem, 0);
	e.tcp_mem[1] = TUNABLE(net_ipv4_tcp_mem, 1);
	e.tcp_mem[2] = TUNABLE(net_ipv4_tcp_mem, 2);
	if (!e.tcp_mem[2])
		return;
	if (near_full(e.allocated_pages, e.tcp_mem[2])) {
		now_ns = bpf_ktime_get_ns();
		tell_shortage(net, (struct event_metrics_unsaved *)&e, now_ns);
		if (is_worse(NEAR_EXHAUSTION, e.allocated_pages, e.tcp_mem[2], now_ns) &&
		    !SEND(memory_near_exhaustion, net, (struct event_memory_near_exhaustion *)&e))
			remember(NEAR_EXHAUSTION, e.allocated_pages, now_ns);
	} else if (near_full(e.allocated_pages, e.tcp_mem[1])) {
		now_ns = bpf_ktime_get_ns();
		if (is_worse(NEAR_PRESSURE, e.allocated_pages, e.tcp_mem[1], now_ns) &&
		    !SEND(memory_near_pressure, net, &e))
			remember(NEAR_PRESSURE, e.allocated_pages, now_ns);
	} else if (e.allocated_pages <= e.tcp_mem[0]) {
		tell_ease(net, (struct event_metrics_saved *)&e);
	}
}

/* A socket is refused memory because TCP as a whole has reached its maximum. */
PROBE(exceed, struct sock *sk)
{
	if (READ_BITS(sk, sk_protocol) == IPPROTO_TCP)
		look_at_memory(sk, READ(sk, __sk_common.skc_net.net));
	return 0;
}

/*
 * A connection is made, or a socket closed: when many that held memory go, the last of them sees
 * the end of the shortage.
 */
PROBE(state, struct sock *sk, int state)
{
	if ((state == BPF_TCP_ESTABLISHED || state == BPF_TCP_CLOSE) &&
	    READ_BITS(sk, sk_protocol) == IPPROTO_TCP)
		look_at_memory(sk, READ(sk, __sk_common.skc_net.net));
	return 0;
}

/*
 * How many unfinished handshakes tcp_max_syn_backlog allows each listener: without cookies its last
 * quarter is kept for peers that are known, see tcp_conn_request(). With cookies it means nothing.
 */
static __always_inline u32 backlog_limit(struct net *net)
{
	s32 backlog = READ(net, ipv4.sysctl_max_syn_backlog);

	return backlog - (backlog >> 2);
}

static __always_inline void tell_queue_full(struct sock *sk, struct net *net, u32 unfinished,
					    u32 limit, u32 listen_backlog)
{
	struct event_syn_queue_full e = {};

	e.handshakes = unfinished;
	e.handshakes_limit = limit;
	e.listen_backlog = listen_backlog;
	e.max_syn_backlog = READ(net, ipv4.sysctl_max_syn_backlog);
	e.syncookies = READ(net, ipv4.sysctl_tcp_syncookies);
	e.allocated_pages = allocated_pages(sk);
	SEND(syn_queue_full, net, &e);
}

/*
 * A SYN came in, where the hook is tcp_conn_request(), or the answer to an earlier one was not
 * taken and is repeated. In both cases sk listens, and its queue may be full of those whom nobody
 * will hear of again. Listeners are not locked here.
 */
PROBE(listen, struct sock *sk)
{
	struct inet_connection_sock *icsk = (struct inet_connection_sock *)TCP_SOCK(sk);
	u32 unfinished, listen_backlog, limit;
	struct net *net;

	if (!icsk)
		return 0;
	net = READ(sk, __sk_common.skc_net.net);
	unfinished = READ(icsk, icsk_accept_queue.qlen.counter);
	listen_backlog = READ(sk, sk_max_ack_backlog);
	/* Full means more than that. */
	limit = listen_backlog + 1;
	if (!READ(net, ipv4.sysctl_tcp_syncookies) && backlog_limit(net) < limit)
		limit = backlog_limit(net);
	if (near_full(unfinished, limit))
		tell_queue_full(sk, net, unfinished, limit, listen_backlog);
	return 0;
}

/* A listener took a handshake into its queue. */
static __always_inline void count_handshake(u64 cookie)
{
	struct handshakes first = { .since_ns = bpf_ktime_get_ns(), .unfinished = 1 };
	struct handshakes *handshakes = begun.lookup(&cookie);

	if (!handshakes || first.since_ns - handshakes->since_ns > HANDSHAKE_NS)
		begun.update(&cookie, &first);
	else
		__sync_fetch_and_add(&handshakes->unfinished, 1);
}

/*
 * A peer finished its handshake. Who answers in time never shows in PROBE(listen), however many
 * there are at once. Those of all listeners in the namespace count as one queue here: the policy
 * looks at what the kernel refused before it does anything.
 */
static __always_inline void finish_handshake(struct sock *sk, struct net *net)
{
	u64 cookie = READ(net, net_cookie);
	struct handshakes *handshakes = begun.lookup(&cookie);
	s32 unfinished;

	if (!handshakes)
		return;
	/* Below 0 when two CPUs finish the last one, or one from before since_ns. */
	unfinished = handshakes->unfinished;
	if (unfinished <= 0)
		return;
	__sync_fetch_and_add(&handshakes->unfinished, -1);
	/* A socket has what listen(2) allowed from its listener. */
	if (!READ(net, ipv4.sysctl_tcp_syncookies) && near_full(unfinished, backlog_limit(net)))
		tell_queue_full(sk, net, unfinished, backlog_limit(net),
				READ(sk, sk_max_ack_backlog));
}

/*
 * The application has just read, and the kernel is about to decide whether the buffer should grow:
 * rcvq_space.space is the most it ever took in within one round trip. Runs with the socket locked.
 */
PROBE(receive, struct sock *sk)
{
	struct event_rcvbuf_near_limit e = {};
	struct mark_key key = { .direction = RECEIVING };
	struct sample_out out = {};
	struct mark now = {};
	struct tcp_sock *tp;
	struct net *net;
	s64 limit;

	if (READ_BITS(sk, sk_userlocks) & SOCK_RCVBUF_LOCK)
		return 0;
	net = READ(sk, __sk_common.skc_net.net);
	limit = READ(net, ipv4.sysctl_tcp_rmem[2]);
	e.sk_rcvbuf = READ(sk, sk_rcvbuf);
	if (!near_full(e.sk_rcvbuf, limit) || !sampled(receive))
		return 0;
	tp = TCP_SOCK(sk);
	if (!tp)
		return 0;
	e.rcv_rtt_us = READ(tp, rcv_rtt_est.rtt_us) >> 3;
	e.space_bytes = READ(tp, rcvq_space.space);
#ifdef HAVE_tcp_sock__scaling_ratio
	e.scaling_ratio = READ(tp, scaling_ratio);
#endif
	/* Large as the buffer may be, who could fill twice as much is held back by the limit. */
	if (!near_full(2ULL * e.space_bytes * 256 / (e.scaling_ratio ?: RATIO_ASSUMED), limit) ||
	    !e.rcv_rtt_us)
		return 0;
	key.sk = (u64)sk;
	now.bytes = READ(tp, bytes_received);
	now.time_ns = bpf_ktime_get_ns();
	if (!measure(&key, &now, e.rcv_rtt_us, &out))
		return 0;
	e.moved_bytes = out.moved_bytes;
	e.interval_ns = out.interval_ns;
	e.srtt_us = READ(tp, srtt_us) >> 3;
	e.min_rtt_us = READ(tp, rtt_min.s[0].v);
	e.rmem[0] = READ(net, ipv4.sysctl_tcp_rmem[0]);
	e.rmem[1] = READ(net, ipv4.sysctl_tcp_rmem[1]);
	e.rmem[2] = limit;
	e.allocated_pages = allocated_pages(sk);
	SEND(rcvbuf_near_limit, net, &e);
	return 0;
}

/*
 * Everything that was written is on its way, and the writer found no room for more. The kernel
 * looks for this only right after it has sent something (tcp_cwnd_validate()); a writer of large
 * pieces, which devices take whole, finds the buffer full later than that, and the kernel counts
 * nothing.
 */
static __always_inline bool waits_for_room(struct tcp_sock *tp, struct sock *sk)
{
	struct socket *socket = READ(sk, sk_socket);

	return socket && (READ(socket, flags) & (1UL << SOCK_NOSPACE)) &&
	       READ(tp, write_seq) == READ(tp, snd_nxt);
}

/*
 * An acknowledgement ended a round trip. The kernel counts the time in which everything was sent,
 * the window still open and the application waiting for room: if that time has grown, or the
 * application waits right now, the send buffer was what the flow waited for. In jiffies, so waits
 * on a LAN do not count. Of a socket seen for the first time the count tells nothing yet: it waited
 * at any time in its life. The mark moves along while nothing is waited for, so that a sample is of
 * the time that was.
 */
static __always_inline void look_at_sender(struct tcp_sock *tp, struct sock *sk, struct net *net)
{
	struct event_sndbuf_near_limit e = {};
	struct mark_key key = { .direction = SENDING };
	struct sample_out out = {};
	struct mark now = {};
	struct mark *mark;
	s64 limit;

	if (READ_BITS(sk, sk_userlocks) & SOCK_SNDBUF_LOCK)
		return;
	limit = READ(net, ipv4.sysctl_tcp_wmem[2]);
	e.sk_sndbuf = READ(sk, sk_sndbuf);
	if (!near_full(e.sk_sndbuf, limit))
		return;
	e.srtt_us = READ(tp, srtt_us) >> 3;
	if (!e.srtt_us)
		return;
	now.limited_jiffies = READ(tp, chrono_stat[TCP_CHRONO_SNDBUF_LIMITED - 1]);
	now.bytes = READ(tp, bytes_acked);
	now.time_ns = bpf_ktime_get_ns();
	key.sk = (u64)tp;
	mark = find_mark(&key, &now);
	if (mark)
		e.limited_jiffies = now.limited_jiffies - mark->limited_jiffies;
	if (waits_for_room(tp, sk))
		e.limited_jiffies += e.srtt_us / LONGEST_JIFFY_US;
	if (!e.limited_jiffies) {
		marks.update(&key, &now);
		return;
	}
	if (!measure(&key, &now, e.srtt_us, &out))
		return;
	e.moved_bytes = out.moved_bytes;
	e.interval_ns = out.interval_ns;
	e.queued_bytes = READ(tp, write_seq) - READ(tp, snd_una);
	e.snd_cwnd = READ(tp, snd_cwnd);
	e.mss_bytes = READ(tp, mss_cache);
	e.min_rtt_us = READ(tp, rtt_min.s[0].v);
	e.wmem[0] = READ(net, ipv4.sysctl_tcp_wmem[0]);
	e.wmem[1] = READ(net, ipv4.sysctl_tcp_wmem[1]);
	e.wmem[2] = limit;
	e.allocated_pages = allocated_pages(sk);
	SEND(sndbuf_near_limit, net, &e);
}

/* For connections, and handshakes, which nothing here is about. */
PROBE_CTX(send, struct bpf_sock_ops *ctx)
{
	struct bpf_sock *bpf_sk = ctx->sk;
	struct tcp_sock *tp;
	struct sock *sk;
	struct net *net;

	switch (ctx->op) {
	case BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB:
	case BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB:
		bpf_sock_ops_cb_flags_set(ctx,
					  ctx->bpf_sock_ops_cb_flags | BPF_SOCK_OPS_RTT_CB_FLAG);
		return 1;
	case BPF_SOCK_OPS_RTT_CB:
		break;
	default:
		return 1;
	}
	tp = bpf_sk ? TCP_SOCK(bpf_sk) : NULL;
	if (!tp)
		return 1;
	sk = (struct sock *)tp;
	net = READ(sk, __sk_common.skc_net.net);
	look_at_memory(sk, net);
	look_at_sender(tp, sk, net);
	return 1;
}

/* A handshake is no full socket yet; what it belongs to cannot be reached from here. */
PROBE_CTX(handshake, struct bpf_sock_ops *ctx)
{
	struct bpf_sock *bpf_sk = ctx->sk;
	struct tcp_sock *tp;
	struct sock *sk;

	switch (ctx->op) {
	case BPF_SOCK_OPS_TIMEOUT_INIT:
		if (!ctx->is_fullsock)
			count_handshake(bpf_get_netns_cookie(ctx));
		return 1;
	case BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB:
		break;
	default:
		return 1;
	}
	tp = bpf_sk ? TCP_SOCK(bpf_sk) : NULL;
	if (!tp)
		return 1;
	sk = (struct sock *)tp;
	finish_handshake(sk, READ(sk, __sk_common.skc_net.net));
	return 1;
}

/*
 * In place of the callback where sockops is refused: a segment of an established connection came
 * in and is not processed yet; nearly always it acknowledges something. Runs with the socket
 * locked.
 */
PROBE(segment, struct sock *sk)
{
	struct tcp_sock *tp;
	struct net *net;

	if (!sampled(send))
		return 0;
	tp = TCP_SOCK(sk);
	if (!tp)
		return 0;
	net = READ(sk, __sk_common.skc_net.net);
	look_at_memory(sk, net);
	look_at_sender(tp, sk, net);
	return 0;
}

/* Connections that were there before us ask for the callback late. */
PROBE_CTX(adopt, struct bpf_iter__tcp *ctx)
{
	request_callbacks(ctx, BPF_SOCK_OPS_RTT_CB_FLAG);
	return 0;
}
