// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A connection that goes to TIME-WAIT gets a small stand-in, and its socket is closed from one of
 * these states right after the stand-in was counted: tcp_time_wait() in net/ipv4/tcp_minisocks.c.
 */
#include "bpftune.h"

/* The states are part of the ABI: enum in include/net/tcp_states.h, BPF_TCP_* in linux/bpf.h. */
static __always_inline bool may_leave_time_wait(int old_state)
{
	return old_state == BPF_TCP_FIN_WAIT1 || old_state == BPF_TCP_FIN_WAIT2 ||
	       old_state == BPF_TCP_CLOSING;
}

PROBE(closing, struct sock *sk, int old_state, int new_state)
{
	struct event_time_wait_near_limit e = {};
	struct net *net;

	if (new_state != BPF_TCP_CLOSE || !may_leave_time_wait(old_state))
		return 0;
	net = READ(sk, __sk_common.skc_net.net);
	/* The counter starts at one: it is the reference that the namespace itself holds. */
	e.time_wait = READ(net, ipv4.tcp_death_row.tw_refcount.refs.counter) - 1;
	e.limit = READ(net, ipv4.tcp_death_row.sysctl_max_tw_buckets);
	if (near_full(e.time_wait, e.limit))
		SEND(time_wait_near_limit, net, &e);
	return 0;
}
