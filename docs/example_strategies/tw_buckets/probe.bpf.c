// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A connection that goes to TIME-WAIT gets a small stand-in, and its socket is closed from one of
 * these states right after the stand-in was counted: tcp_time_wait() in net/ipv4/tcp_minisocks.c.
 *
 * Two probes with one hook and one body between them. Only that of the active strategy is attached,
 * so a connection is looked at once at most.
 */
#include "bpftune.h"

/* The states are part of the ABI: enum in include/net/tcp_states.h, BPF_TCP_* in linux/bpf.h. */
static __always_inline bool leaves_time_wait(int old_state, int new_state)
{
	return new_state == BPF_TCP_CLOSE &&
	       (old_state == BPF_TCP_FIN_WAIT1 || old_state == BPF_TCP_FIN_WAIT2 ||
		old_state == BPF_TCP_CLOSING);
}

static __always_inline int compare_with_limit(struct sock *sk)
{
	struct event_tw_near_limit e = {};
	struct net *net = READ(sk, __sk_common.skc_net.net);

	/* The counter starts at one: it is the reference that the namespace itself holds. */
	e.time_wait = READ(net, ipv4.tcp_death_row.tw_refcount.refs.counter) - 1;
	e.limit = READ(net, ipv4.tcp_death_row.sysctl_max_tw_buckets);
	if (near_full(e.time_wait, e.limit))
		SEND(tw_near_limit, net, &e);
	return 0;
}

PROBE(sampled_closing, struct sock *sk, int old_state, int new_state)
{
	if (!leaves_time_wait(old_state, new_state) || !sampled(sampled_closing))
		return 0;
	return compare_with_limit(sk);
}

PROBE(every_closing, struct sock *sk, int old_state, int new_state)
{
	if (!leaves_time_wait(old_state, new_state))
		return 0;
	return compare_with_limit(sk);
}
