// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Congestion control per connection. One that retransmits too much is moved to bbr; a new one
 * gets the algorithm that did best on the path it takes, once a few have been seen there. All of
 * it is decided here, with the socket locked by the kernel: user space reads the table.
 */
#include "bpftune.h"

#define AF_INET 2
#define AF_INET6 10
#define TCP_CONGESTION 13
#define TCP_THIN_LINEAR_TIMEOUTS 16

/* include/uapi/linux/ipv6_route.h */
#define RTF_GATEWAY 0x0002

/* include/net/tcp.h: classic ECN was negotiated. TCP_ECN_MODE_RFC3168 in newer kernels. */
#define TCP_ECN_OK 1

#define CALLBACKS \
	(BPF_SOCK_OPS_RETRANS_CB_FLAG | BPF_SOCK_OPS_STATE_CB_FLAG | BPF_SOCK_OPS_RTT_CB_FLAG)

/* More than segs_out >> 6 retransmits, 1/64 of the segments, are too many. */
#define LOSS_SHIFT 6

/* Connections of a path that keep what they came with: there is nothing to compare yet. */
#define WATCHED_ONLY 3

/* One choice in so many is made at random: what lost once may be better by now. */
#define EXPLORE_ONE_IN 20

/* An algorithm that could not be set may be a module that is loaded later. */
#define MISSING_NS 60000000000ULL

/* Moves of connections to one remote are told at most this often, with their number. */
#define REMOTE_INTERVAL_NS 10000000000ULL

#define DCTCP_RTT_US 1000
#define NO_RTT_US 0xffffffffU
#define ONE 1024

/*
 * What net.ipv4.tcp_available_congestion_control may list, but for lp, which gives way to everyone,
 * and cdg, which the kernel keeps from BPF. Which of these there are shows when one is set. No name
 * has more than 8 letters, so each is compared, and set, as the one number that its bytes are.
 */
#define NUMBER(a, b, c, d, e, f, g, h)                                                 \
	((u64)(a) | (u64)(b) << 8 | (u64)(c) << 16 | (u64)(d) << 24 | (u64)(e) << 32 | \
	 (u64)(f) << 40 | (u64)(g) << 48 | (u64)(h) << 56)
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define NAME(a, b, c, d, e, f, g, h) NUMBER(a, b, c, d, e, f, g, h)
#else
#define NAME(a, b, c, d, e, f, g, h) NUMBER(h, g, f, e, d, c, b, a)
#endif
/* clang-format off */
#define ALGORITHMS(each) \
	each(0, NAME('c', 'u', 'b', 'i', 'c', 0, 0, 0)) \
	each(1, NAME('b', 'b', 'r', 0, 0, 0, 0, 0)) \
	each(2, NAME('h', 't', 'c', 'p', 0, 0, 0, 0)) \
	each(3, NAME('r', 'e', 'n', 'o', 0, 0, 0, 0)) \
	each(4, NAME('d', 'c', 't', 'c', 'p', 0, 0, 0)) \
	each(5, NAME('b', 'i', 'c', 0, 0, 0, 0, 0)) \
	each(6, NAME('w', 'e', 's', 't', 'w', 'o', 'o', 'd')) \
	each(7, NAME('i', 'l', 'l', 'i', 'n', 'o', 'i', 's')) \
	each(8, NAME('h', 's', 't', 'c', 'p', 0, 0, 0)) \
	each(9, NAME('h', 'y', 'b', 'l', 'a', 0, 0, 0)) \
	each(10, NAME('s', 'c', 'a', 'l', 'a', 'b', 'l', 'e')) \
	each(11, NAME('v', 'e', 'g', 'a', 's', 0, 0, 0)) \
	each(12, NAME('n', 'v', 0, 0, 0, 0, 0, 0)) \
	each(13, NAME('v', 'e', 'n', 'o', 0, 0, 0, 0)) \
	each(14, NAME('y', 'e', 'a', 'h', 0, 0, 0, 0))
/* clang-format on */
#define BBR 1
#define DCTCP 4
#define COUNT 15
/* Stands for any other: it is counted and measured, never chosen. */
#define OTHER 15
#define NONE 16

/* The path in struct connection is known. */
#define KEYED 1
/* It was counted, and what follows here is known. */
#define ENTERED 2
/* The algorithm was set by us. */
#define OURS 4
/* Its retransmits were judged; once is enough. */
#define JUDGED 8

struct connection {
	struct paths_key path;
	u32 algorithm;
	u32 flags;
	/* Of its round trips with that algorithm. */
	u64 rates;
	u32 rounds;
	u32 max_rate;
	/* While it is chosen for; volatile, or the compiler would keep them in registers. */
	volatile u64 least;
	volatile u32 candidates;
	volatile u32 choice;
};

struct remote_key {
	u64 netns_cookie;
	u32 address[4];
};

struct remote {
	u64 told_ns;
	u32 connections;
	u32 pad;
};

BPF_SK_STORAGE(connections, struct connection);

/*
 * Not an LRU: those hand out free elements to each CPU by the hundred, and before Linux kernel
 * commit d4adf1c9ee77 ("bpf: Adjust free target to avoid global starvation of LRU map") (in v6.17)
 * a machine with many CPUs drops elements in use long before the map is full. A path that finds no
 * room is not learned about.
 */
BPF_F_TABLE("hash", struct paths_key, struct paths_value, paths, 2048, BPF_F_NO_PREALLOC);
BPF_ARRAY(blank_path, struct paths_value, 1);
BPF_ARRAY(missing_since_ns, u64, 16);
/* An LRU, as remotes never end. Room for the 128 free elements that each of 128 CPUs holds back. */
BPF_TABLE("lru_hash", struct remote_key, struct remote, remotes, 16384);

static __always_inline struct net *net_of(struct tcp_sock *tp)
{
	struct sock *sk = (struct sock *)tp;

	return READ(sk, __sk_common.skc_net.net);
}

/*
 * The other end in network order, IPv4 in the first word; returns 4 or 6. Volatile, since the
 * compiler would make one load of two from a computed address, which the verifier does not accept.
 */
static __always_inline u32 remote_address(struct bpf_sock_ops *given, u32 *address)
{
	volatile struct bpf_sock_ops *ctx = given;

	if (ctx->family == AF_INET) {
		address[0] = ctx->remote_ip4;
		return 4;
	}
	address[0] = ctx->remote_ip6[0];
	address[1] = ctx->remote_ip6[1];
	address[2] = ctx->remote_ip6[2];
	address[3] = ctx->remote_ip6[3];
	if (address[0] || address[1] || address[2] != bpf_htonl(0xffff))
		return 6;
	address[0] = address[3];
	address[2] = 0;
	address[3] = 0;
	return 4;
}

/*
 * The next hop of the socket's route. An IPv4 route may have an IPv6 gateway. False when the other
 * end is on the link, or the socket has no route at the moment.
 */
static __always_inline bool find_gateway(struct dst_entry *dst, struct paths_key *path)
{
	struct rt6_info *rt6 = (struct rt6_info *)dst;
	struct rtable *rt = (struct rtable *)dst;
	u16 family = READ(READ(dst, ops), family);
	struct in6_addr gateway;
	u8 gateway_family;

	if (family == AF_INET) {
		gateway_family = READ_UNTYPED(rt, rt_gw_family);
		if (gateway_family == AF_INET) {
			path->family = 4;
			*(u32 *)path->address = READ_UNTYPED(rt, rt_gw4);
			return true;
		}
		if (gateway_family != AF_INET6)
			return false;
		gateway = READ_UNTYPED(rt, rt_gw6);
	} else {
		if (!(READ_UNTYPED(rt6, rt6i_flags) & RTF_GATEWAY))
			return false;
		gateway = READ_UNTYPED(rt6, rt6i_gateway);
	}
	path->family = 6;
	__builtin_memcpy(path->address, &gateway, sizeof(path->address));
	return true;
}

/*
 * A program of its own, since kernels that are locked down for confidentiality refuse it. Without
 * it every connection counts as if the other end were on the link.
 */
PROBE_CTX(gateway, struct bpf_sock_ops *ctx)
{
	struct connection *connection;
	struct bpf_sock *bpf_sk;
	struct dst_entry *dst;
	struct tcp_sock *tp;

	switch (ctx->op) {
	case BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB:
	case BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB:
	case BPF_SOCK_OPS_RETRANS_CB:
		break;
	case BPF_SOCK_OPS_STATE_CB:
		if (ctx->args[0] == BPF_TCP_ESTABLISHED)
			break;
		return 1;
	default:
		return 1;
	}
	bpf_sk = ctx->sk;
	if (!bpf_sk)
		return 1;
	connection = connections.sk_storage_get(bpf_sk, 0, 0);
	if (connection)
		return 1;
	tp = TCP_SOCK(bpf_sk);
	if (!tp || is_off(net_of(tp)))
		return 1;
	dst = READ((struct sock *)tp, sk_dst_cache);
	if (!dst)
		return 1;
	connection = connections.sk_storage_get(bpf_sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
	if (connection && find_gateway(dst, &connection->path))
		connection->flags |= KEYED;
	return 1;
}

/* The network that the other end is in, as far as an address tells. */
static __always_inline void take_prefix(struct bpf_sock_ops *ctx, struct paths_key *path)
{
	u32 address[4] = {};

	path->family = remote_address(ctx, address);
	if (path->family == 4) {
		path->prefix_bits = 24;
		address[0] &= bpf_htonl(0xffffff00);
	} else {
		path->prefix_bits = 64;
		address[2] = 0;
		address[3] = 0;
	}
	__builtin_memcpy(path->address, address, sizeof(path->address));
}

static __always_inline struct paths_value *path_of(struct connection *connection)
{
	struct paths_value *path = paths.lookup(&connection->path);
	struct paths_value *blank;
	int zero = 0;

	if (path)
		return path;
	blank = blank_path.lookup(&zero);
	if (!blank)
		return NULL;
	paths.insert(&connection->path, blank);
	return paths.lookup(&connection->path);
}

static __always_inline u64 name_of(u32 algorithm)
{
#define NAME_CASE(number, name) \
	case number:            \
		return name;
	switch (algorithm) {
		ALGORITHMS(NAME_CASE)
	}
	return 0;
}

static __always_inline u32 current_algorithm(struct tcp_sock *tp)
{
	struct inet_connection_sock *icsk = (struct inet_connection_sock *)tp;
	struct tcp_congestion_ops *ops = READ(icsk, icsk_ca_ops);
	u64 *name;

	if (!ops)
		return OTHER;
	name = (u64 *)&ops->name;
	if (name[1])
		return OTHER;
#define NUMBER_CASE(number, name) \
	case name:                \
		return number;
	switch (name[0]) {
		ALGORITHMS(NUMBER_CASE)
	}
	return OTHER;
}

/* The application, or its listener before it, or the route has decided: not ours to change. */
static __always_inline bool is_taken(struct tcp_sock *tp, struct connection *connection)
{
	struct inet_connection_sock *icsk = (struct inet_connection_sock *)tp;

	if (READ_BITS(icsk, icsk_ca_dst_locked))
		return true;
	if (!READ_BITS(icsk, icsk_ca_setsockopt))
		return false;
	return !(connection->flags & OURS) || connection->algorithm != current_algorithm(tp);
}

/*
 * bbr needs its packets paced. Without a qdisc that does it, TCP itself must: Linux kernel commit
 * 218af599fa63 ("tcp: internal implementation for pacing") (in v4.13). Where a qdisc does, the time
 * at which a packet shall leave must survive its way out of a namespace: commit a1ac9c8acec1 ("net:
 * Add skb->mono_delivery_time to distinguish mono delivery_time from (rcv) timestamp") (in v5.18).
 */
static __always_inline bool bbr_is_paced(struct net *net)
{
#if !defined(HAVE_sock__sk_pacing_status)
	return false;
#elif defined(HAVE_sk_buff__mono_delivery_time) || defined(HAVE_sk_buff__tstamp_type)
	return true;
#else
	return READ(net, net_cookie) == bpf_get_netns_cookie(NULL);
#endif
}

static __always_inline bool is_candidate(struct tcp_sock *tp, u32 algorithm, u64 now_ns)
{
	u64 *since_ns = missing_since_ns.lookup((int *)&algorithm);

	if (!since_ns || (*since_ns && now_ns - *since_ns < MISSING_NS))
		return false;
	if (algorithm == BBR)
		return bbr_is_paced(net_of(tp));
	if (algorithm == DCTCP)
		return READ_BITS(tp, ecn_flags) & TCP_ECN_OK &&
		       READ(tp, rtt_min.s[0].v) < DCTCP_RTT_US;
	return true;
}

/* False if the kernel does not have it; it is left out for a while then. */
static __always_inline bool set_algorithm(struct bpf_sock_ops *ctx, struct connection *connection,
					  u32 algorithm, u64 now_ns)
{
	u64 name[2] = { name_of(algorithm) };
	u64 *since_ns;

	if (!bpf_setsockopt(ctx, SOL_TCP, TCP_CONGESTION, name, sizeof(name))) {
		connection->algorithm = algorithm;
		connection->flags |= OURS;
		return true;
	}
	since_ns = missing_since_ns.lookup((int *)&algorithm);
	if (since_ns)
		*since_ns = now_ns;
	return false;
}

/* How far from the best that was seen on the path, in 1/1024: time lost plus rate lost. */
static __always_inline u64 cost(struct paths_value *path, u32 algorithm)
{
	u64 rtt_us = path->rtt_us[algorithm & 15], best_rtt_us = path->best_rtt_us ?: 1;
	u64 rate = path->rate[algorithm & 15], best_rate = path->best_rate ?: 1;
	u64 late = rtt_us > best_rtt_us ? (rtt_us - best_rtt_us) * ONE / best_rtt_us : 0;
	u64 slow = rate < best_rate ? (best_rate - rate) * ONE / best_rate : 0;

	return late + slow;
}

/*
 * What follows keeps what it finds in the connection's storage, not in variables: the verifier
 * forgets what is stored there, and would otherwise follow every combination of findings.
 */
static __always_inline void find_candidates(struct tcp_sock *tp, struct connection *connection,
					    u64 now_ns)
{
	connection->candidates = 0;
	for (u32 i = 0; i < COUNT; i++) {
		if (is_candidate(tp, i, now_ns))
			connection->candidates |= 1U << i;
	}
}

static __always_inline void find_cheapest(struct connection *connection, struct paths_value *path)
{
	u64 found;

	connection->least = ~0ULL;
	for (u32 i = 0; i < COUNT; i++) {
		if (!(connection->candidates & 1U << i) || !path->measured[i])
			continue;
		found = cost(path, i);
		if (found >= connection->least)
			continue;
		connection->least = found;
		connection->choice = i;
	}
}

static __always_inline void find_any(struct connection *connection)
{
	connection->least = 0;
	/* Each replaces the one before by the chance that it has among all so far. */
	for (u32 i = 0; i < COUNT; i++) {
		if (!(connection->candidates & 1U << i))
			continue;
		connection->least++;
		if (bpf_get_prandom_u32() % connection->least == 0)
			connection->choice = i;
	}
}

/* The first that nothing is known about and that the kernel has. */
static __always_inline bool try_untried(struct bpf_sock_ops *ctx, struct connection *connection,
					struct paths_value *path, u64 now_ns)
{
	for (u32 i = 0; i < COUNT; i++) {
		if (!(connection->candidates & 1U << i) || path->used[i])
			continue;
		if (set_algorithm(ctx, connection, i, now_ns))
			return true;
	}
	return false;
}

static __always_inline void choose(struct bpf_sock_ops *ctx, struct tcp_sock *tp,
				   struct connection *connection, struct paths_value *path)
{
	bool greedy = bpf_get_prandom_u32() % EXPLORE_ONE_IN;
	u64 now_ns = bpf_ktime_get_ns();
	u32 choice;

	find_candidates(tp, connection, now_ns);
	if (try_untried(ctx, connection, path, now_ns))
		return;
	connection->choice = NONE;
	if (greedy)
		find_cheapest(connection, path);
	else
		find_any(connection);
	choice = connection->choice;
	if (choice == NONE)
		return;
	if (choice != connection->algorithm && !set_algorithm(ctx, connection, choice, now_ns))
		return;
	if (greedy)
		__sync_fetch_and_add(&path->greedy[choice & 15], 1);
}

/* Counts a connection once, when it is first seen; `fresh`: it has not sent anything yet. */
static __always_inline struct connection *enter(struct bpf_sock_ops *ctx, struct bpf_sock *sk,
						struct tcp_sock *tp, bool fresh)
{
	struct connection *connection;
	struct dst_entry *dst;
	struct paths_value *path;

	connection = connections.sk_storage_get(sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
	if (!connection || connection->flags & ENTERED)
		return connection;
	connection->flags |= ENTERED;
	connection->path.netns_cookie = READ(net_of(tp), net_cookie);
	dst = READ((struct sock *)tp, sk_dst_cache);
	if (dst)
		connection->path.ifindex = READ(READ(dst, dev), ifindex);
	if (!(connection->flags & KEYED))
		take_prefix(ctx, &connection->path);
	connection->algorithm = current_algorithm(tp);
	path = path_of(connection);
	if (!path)
		return connection;
	__sync_fetch_and_add(&path->connections, 1);
	if (fresh && path->connections > WATCHED_ONLY && !is_dry_run() && !is_taken(tp, connection))
		choose(ctx, tp, connection, path);
	__sync_fetch_and_add(&path->used[connection->algorithm & 15], 1);
	return connection;
}

/*
 * The kernel's estimate of the delivery rate, in bytes per ms. It is that of the newest round trip
 * in which the application kept the connection busy. 0: there was none, so that nothing is known
 * about the algorithm; the application had too little to send, or only receives.
 */
static __always_inline u32 delivery_rate(struct tcp_sock *tp)
{
	u32 interval_us = READ(tp, rate_interval_us);
	u64 rate;

	if (!interval_us || !READ(tp, data_segs_out) || READ_BITS(tp, rate_app_limited))
		return 0;
	rate = 1000ULL * READ(tp, rate_delivered) * READ(tp, mss_cache) / interval_us;
	return rate < 0xffffffff ? rate : 0xffffffff;
}

/* A round trip ended. A single rate says little: losses, bursts, the last few segments. */
static __always_inline void look_at_round(struct bpf_sock *sk, struct tcp_sock *tp)
{
	struct connection *connection = connections.sk_storage_get(sk, 0, 0);
	u32 rate;

	if (!connection || !(connection->flags & ENTERED))
		return;
	rate = delivery_rate(tp);
	if (!rate)
		return;
	connection->rates += rate;
	connection->rounds++;
	if (rate > connection->max_rate)
		connection->max_rate = rate;
}

/* What the connection achieved with its algorithm, which ends here. */
static __always_inline void measure(struct connection *connection, struct tcp_sock *tp)
{
	struct paths_value *path = paths.lookup(&connection->path);
	u32 algorithm = connection->algorithm & 15;
	u32 rtt_us = READ(tp, rtt_min.s[0].v);
	u32 rate, max_rate;

	rate = connection->rounds ? connection->rates / connection->rounds : delivery_rate(tp);
	max_rate = connection->max_rate ?: rate;
	connection->rates = 0;
	connection->rounds = 0;
	connection->max_rate = 0;
	if (!path || !rate || !rtt_us || rtt_us == NO_RTT_US)
		return;
	if (!path->best_rtt_us || rtt_us < path->best_rtt_us)
		path->best_rtt_us = rtt_us;
	if (rate > path->best_rate)
		path->best_rate = rate;
	if (max_rate > path->max_rate[algorithm])
		path->max_rate[algorithm] = max_rate;
	if (!path->measured[algorithm]) {
		path->rtt_us[algorithm] = rtt_us;
		path->min_rtt_us[algorithm] = rtt_us;
		path->rate[algorithm] = rate;
	} else {
		path->rtt_us[algorithm] = learned(path->rtt_us[algorithm], rtt_us);
		path->rate[algorithm] = learned(path->rate[algorithm], rate);
		if (rtt_us < path->min_rtt_us[algorithm])
			path->min_rtt_us[algorithm] = rtt_us;
	}
	__sync_fetch_and_add(&path->measured[algorithm], 1);
}

/* One event per remote and interval, with the number of connections it stands for. */
static __always_inline void tell(struct bpf_sock_ops *ctx, struct tcp_sock *tp, u32 old)
{
	struct event_lossy_connection e = { .dry_run = is_dry_run() };
	struct remote_key key = { .netns_cookie = READ(net_of(tp), net_cookie) };
	struct remote first = {};
	struct remote *remote;
	u64 now_ns = bpf_ktime_get_ns();

	e.family = remote_address(ctx, key.address);
	remote = remotes.lookup(&key);
	if (!remote) {
		remotes.insert(&key, &first);
		remote = remotes.lookup(&key);
	}
	if (!remote)
		return;
	__sync_fetch_and_add(&remote->connections, 1);
	if (remote->told_ns && now_ns - remote->told_ns < REMOTE_INTERVAL_NS)
		return;
	__builtin_memcpy(e.remote, key.address, sizeof(e.remote));
	*(u64 *)e.old = name_of(old);
	e.connections = remote->connections;
	e.segs_out = READ(tp, segs_out);
	e.total_retrans = READ(tp, total_retrans);
	if (SEND(lossy_connection, net_of(tp), &e))
		return;
	remote->told_ns = now_ns;
	remote->connections = 0;
}

static __always_inline void make_timeouts_linear(struct bpf_sock_ops *ctx, struct net *net)
{
#ifdef HAVE_net__ipv4_sysctl_tcp_thin_linear_timeouts
	int one = 1;

	/* Kernels before v6.1 do not let BPF do it; the rest holds all the same. */
	if (!READ(net, ipv4.sysctl_tcp_thin_linear_timeouts))
		bpf_setsockopt(ctx, SOL_TCP, TCP_THIN_LINEAR_TIMEOUTS, &one, sizeof(one));
#endif
}

static __always_inline void move_to_bbr(struct bpf_sock_ops *ctx, struct tcp_sock *tp,
					struct connection *connection)
{
	struct paths_value *path;
	u32 old = connection->algorithm;

	if (!is_dry_run()) {
		measure(connection, tp);
		if (!set_algorithm(ctx, connection, BBR, bpf_ktime_get_ns()))
			return;
		make_timeouts_linear(ctx, net_of(tp));
		path = paths.lookup(&connection->path);
		if (path) {
			__sync_fetch_and_add(&path->moved[old & 15], 1);
			__sync_fetch_and_add(&path->used[BBR], 1);
		}
	}
	tell(ctx, tp, old);
}

/* Segments are counted in 32 bits, which a fast connection fills within hours; then bytes must do.
 */
static __always_inline bool is_lossy(struct tcp_sock *tp)
{
	u64 sent_bytes = READ(tp, bytes_sent);

	if (sent_bytes >> 32)
		return READ(tp, bytes_retrans) > sent_bytes >> LOSS_SHIFT;
	return READ(tp, total_retrans) > READ(tp, segs_out) >> LOSS_SHIFT;
}

/* A segment is sent again and has been counted. */
static __always_inline void look_at_loss(struct bpf_sock_ops *ctx, struct bpf_sock *sk,
					 struct tcp_sock *tp)
{
	struct connection *connection;

	if (!is_lossy(tp))
		return;
	connection = enter(ctx, sk, tp, false);
	if (!connection || connection->flags & JUDGED)
		return;
	connection->flags |= JUDGED;
	if (current_algorithm(tp) == BBR || is_taken(tp, connection))
		return;
	if (is_candidate(tp, BBR, bpf_ktime_get_ns()))
		move_to_bbr(ctx, tp, connection);
}

/* Called before the state changes, so the route is still there unless the connection is reset. */
static __always_inline void look_at_state(struct bpf_sock_ops *ctx, struct bpf_sock *sk,
					  struct tcp_sock *tp)
{
	struct connection *connection;

	if (ctx->args[1] != BPF_TCP_CLOSE) {
		enter(ctx, sk, tp, false);
		return;
	}
	connection = connections.sk_storage_get(sk, 0, 0);
	if (connection && connection->flags & ENTERED &&
	    connection->algorithm == current_algorithm(tp))
		measure(connection, tp);
}

PROBE_CTX(connection, struct bpf_sock_ops *ctx)
{
	struct bpf_sock *sk = ctx->sk;
	struct tcp_sock *tp;

	switch (ctx->op) {
	case BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB:
	case BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB:
		bpf_sock_ops_cb_flags_set(ctx, ctx->bpf_sock_ops_cb_flags | CALLBACKS);
		break;
	case BPF_SOCK_OPS_RETRANS_CB:
	case BPF_SOCK_OPS_RTT_CB:
		break;
	case BPF_SOCK_OPS_STATE_CB:
		if (ctx->args[0] == BPF_TCP_ESTABLISHED || ctx->args[1] == BPF_TCP_CLOSE)
			break;
		return 1;
	default:
		return 1;
	}
	tp = sk ? TCP_SOCK(sk) : NULL;
	if (!tp || is_off(net_of(tp)))
		return 1;
	switch (ctx->op) {
	case BPF_SOCK_OPS_RTT_CB:
		look_at_round(sk, tp);
		break;
	case BPF_SOCK_OPS_RETRANS_CB:
		look_at_loss(ctx, sk, tp);
		break;
	case BPF_SOCK_OPS_STATE_CB:
		look_at_state(ctx, sk, tp);
		break;
	default:
		enter(ctx, sk, tp, true);
	}
	return 1;
}

/* Connections that were there before us ask for the callbacks late. */
PROBE_CTX(adopt, struct bpf_iter__tcp *ctx)
{
	request_callbacks(ctx, CALLBACKS);
	return 0;
}
