// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Sockets that the largest allowed buffer holds back: receivers through tcp_rcv_space_adjust,
 * senders through the per-RTT callback of sockops. Neither follows every segment.
 */
#include "bpftune.h"

/* include/net/sock.h: the application set the size itself, the limit does not concern it. */
#define SOCK_SNDBUF_LOCK 1
#define SOCK_RCVBUF_LOCK 2

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

/*
 * What the socket moved since its last sample, exactly; both 0 if it had none. False while less
 * than two round trips have passed: windows come in bursts, less than that says nothing. An address
 * can belong to a new socket by now, whose counter is then behind the mark.
 */
static __always_inline bool measure(struct mark_key *key, struct mark *now, u32 rtt_us,
				    struct sample_out *out)
{
	struct mark *mark = marks.lookup(key);
	u64 interval_ns;

	if (!mark || now->bytes < mark->bytes || now->time_ns - mark->time_ns > STALE_NS) {
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
 * An acknowledgement ended a round trip. The kernel counts the time in which everything was sent,
 * the window still open and the application waiting for room: if that time has grown, the send
 * buffer was what the flow waited for. In jiffies, so waits on a LAN do not count.
 */
static __always_inline void look_at_sender(struct tcp_sock *tp)
{
	struct event_sndbuf_near_limit e = {};
	struct mark_key key = { .direction = SENDING };
	struct sock *sk = (struct sock *)tp;
	struct sample_out out = {};
	struct mark now = {};
	struct mark *mark;
	struct net *net;
	s64 limit;

	if (READ_BITS(sk, sk_userlocks) & SOCK_SNDBUF_LOCK)
		return;
	net = READ(sk, __sk_common.skc_net.net);
	limit = READ(net, ipv4.sysctl_tcp_wmem[2]);
	e.sk_sndbuf = READ(sk, sk_sndbuf);
	if (!near_full(e.sk_sndbuf, limit))
		return;
	now.limited_jiffies = READ(tp, chrono_stat[TCP_CHRONO_SNDBUF_LIMITED - 1]);
	key.sk = (u64)tp;
	mark = marks.lookup(&key);
	e.limited_jiffies = now.limited_jiffies - (mark ? mark->limited_jiffies : 0);
	e.srtt_us = READ(tp, srtt_us) >> 3;
	if (!e.limited_jiffies || !e.srtt_us)
		return;
	now.bytes = READ(tp, bytes_acked);
	now.time_ns = bpf_ktime_get_ns();
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

PROBE_CTX(send, struct bpf_sock_ops *ctx)
{
	struct bpf_sock *sk = ctx->sk;
	struct tcp_sock *tp;

	switch (ctx->op) {
	case BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB:
	case BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB:
		bpf_sock_ops_cb_flags_set(ctx,
					  ctx->bpf_sock_ops_cb_flags | BPF_SOCK_OPS_RTT_CB_FLAG);
		return 1;
	case BPF_SOCK_OPS_RTT_CB:
		tp = sk ? TCP_SOCK(sk) : NULL;
		if (tp)
			look_at_sender(tp);
	}
	return 1;
}

/*
 * Connections that were there before us ask for the callback late. The iterator hands over each
 * socket locked; other users of the flags keep theirs.
 */
#ifdef HAVE_tcp_sock__bpf_sock_ops_cb_flags
#define SOL_TCP 6
#define TCP_BPF_SOCK_OPS_CB_FLAGS 1008

PROBE_CTX(adopt, struct bpf_iter__tcp *ctx)
{
	struct sock_common *skc = ctx->sk_common;
	struct tcp_sock *tp = skc ? TCP_SOCK(skc) : NULL;
	int flags;

	if (!tp || READ(skc, skc_state) != BPF_TCP_ESTABLISHED)
		return 0;
	flags = READ(tp, bpf_sock_ops_cb_flags) | BPF_SOCK_OPS_RTT_CB_FLAG;
	bpf_setsockopt(tp, SOL_TCP, TCP_BPF_SOCK_OPS_CB_FLAGS, &flags, sizeof(flags));
	return 0;
}
#else
PROBE_CTX(adopt, struct bpf_iter__tcp *ctx)
{
	return 0;
}
#endif
