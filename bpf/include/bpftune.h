/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * bpftune.h - what every probe.bpf.c is written against.
 *
 * The generator (bpf/source.py) puts this text in place of the line
 *
 *	#include "bpftune.h"
 *
 * together with everything that follows from tuner.toml and the running kernel's BTF:
 *
 *	struct sock { ... };		only the structs and members named in [structs]
 *	HAVE_<struct>__<member>		defined when this kernel has the member; dots become
 *					underscores. A member without '?' is always there.
 *	SKB_DROP_REASON_...		the constants named in [enums], where this kernel has them
 *	struct event_<scenario>		struct event_header header; then the event's fields
 *	struct <map>_key, <map>_value	the fields of [[tables]] map, for the BPF_HASH or BPF_TABLE
 *					of that name
 *
 * so a probe includes no other header. Types are u8..u64, s8..s64, bool. There are no globals:
 * state lives in maps (BPF_HASH, BPF_ARRAY, BPF_PERCPU_ARRAY, BPF_PERCPU_HASH, BPF_SK_STORAGE,
 * BPF_TABLE("lru_hash", ...); map.lookup(&key), map.update(&key, &value), map.delete(&key),
 * map.sk_storage_get(sk, 0, flags)). Map calls cannot stand inside a macro. A map belongs to
 * its tuner; the maps below are shared by all.
 *
 * Bodies
 *
 *	PROBE(name, struct neigh_table *tbl, struct net_device *dev)
 *	{
 *		...
 *		return 0;
 *	}
 *
 *   is the body of [[probes]] "name" for tp_btf, fentry, fexit, kprobe, kretprobe and raw_tp
 *   rungs. The arguments are the hook's, in order; hooks = ["tp_btf:x(1,0)"] passes the hook's
 *   argument 1 as the body's first and 0 as its second. The return value of a fexit hook
 *   counts as the argument behind the last one, that of a kretprobe as argument 0. A rung that
 *   sees something else than the others names a body of its own: "kprobe:y(0)@other" is served
 *   by PROBE(other, ...).
 *
 *	PROBE_CTX(name, struct bpf_sock_ops *ctx)
 *	{
 *		...
 *		return 1;
 *	}
 *
 *   is the body for rungs with a context of their own: sockops (struct bpf_sock_ops),
 *   cgroup:sysctl (struct bpf_sysctl), cgroup:sock_create (struct bpf_sock), tracepoint
 *   (struct syscall_enter, struct syscall_exit or trace_event_raw_* from [structs]), iter:tcp
 *   (struct bpf_iter__tcp from [structs]). cgroup and sockops bodies return 1: go on.
 *
 * Reading kernel memory
 *
 *	READ(sk, __sk_common.skc_net.net)	one member, by any path without '->'
 *	READ_BITS(sk, sk_userlocks)		an integer that is a bitfield on some kernels
 *	TCP_SOCK(sk)				struct tcp_sock of a struct sock or bpf_sock,
 *						NULL if it is none: check it
 *
 *   READ is a plain load where the verifier knows the type of the pointer (tp_btf, fentry,
 *   context programs) and bpf_probe_read_kernel where it does not (kprobe, kretprobe, raw_tp),
 *   so one body serves every rung: never dereference kernel memory without it. Each READ
 *   follows one pointer: READ(READ(sk, sk_dst_cache), dev). Pointers read this way need no
 *   NULL check before the next READ, which yields 0. [structs] "a->b" names member b of the
 *   unnamed struct that pointer member a points to. PROBED is 1 in the kprobe flavour.
 *
 *	TUNABLE(net_ipv4_tcp_mem, 1)	field 1 of a global tunable that says mirror = true, as
 *					the supervisor last saw or wrote it; 0 where this kernel
 *					lacks it. Dots and dashes become underscores.
 *
 *	READ_UNTYPED(rtable, rt_gw4)		one member, behind a cast that the verifier does
 *						not believe: the rtable of a dst_entry
 *
 *   reads with bpf_probe_read_kernel in every flavour. Kernels locked down for confidentiality
 *   refuse programs with that call: have it in a probe of its own that the tuner can do without.
 *
 * Events
 *
 *	struct event_rmem_near_max e = {};
 *
 *	if (!near_full(rcvbuf, max))
 *		return 0;
 *	e.sk_rcvbuf = rcvbuf;
 *	SEND(rmem_near_max, net, &e);
 *
 *   SEND drops the event where the tuner is off, sends at most one event per 25 ms, scenario
 *   and namespace (the rest is counted and reported as the next one's `suppressed`) and fills
 *   the header. SEND_ALWAYS has no rate limit. An event too large for the stack (some
 *   300 bytes) is built, zeroed at first, in the ring buffer itself, and sent without rate limit:
 *
 *	struct event_x *e = LARGE_EVENT(x);
 *
 *	if (e) {
 *		...
 *		SEND_LARGE(x, net, e);		exactly once on every path
 *	}
 *
 *	near_full(value, limit)	is value within one step (limit >> shift) of limit?
 *	learned(old, seen)	old, moved towards seen by the learning rate (seen - old >> shift)
 *	sampled(probe)		true for 1 in 4 calls of that probe on this CPU, and fewer
 *				while those come less than 10 ms apart
 *	is_off(net)		is the tuner off in that namespace? (SEND asks as well)
 *	is_changed(net)		has the supervisor changed a tunable of this tuner there?
 *	is_supervisor()		does the supervisor itself run this?
 *	is_dry_run()		--dry-run: a probe that acts by itself must not
 *	current_net()		the current task's struct net; needs [structs]
 *				task_struct = ["nsproxy"] and nsproxy = ["net_ns"]
 */

#define EVENT_INTERVAL_NS 25000000ULL
#define SAMPLE_SPACING_NS 10000000ULL
#define SAMPLE_RESET_NS 1000000000ULL
#define SAMPLE_SHIFT_MIN 2
#define SAMPLE_SHIFT_MAX 10

#define PROBE(name, args...) static __always_inline int body_##name(args)
#define PROBE_CTX(name, arg) static __always_inline int body_##name(arg)

/* BCC may redefine bpf_probe_read_kernel to the older helper: name it by its number. */
static long (*read_kernel)(void *dst, u32 size,
			   const void *from) = (void *)BPF_FUNC_probe_read_kernel;

#define READ_UNTYPED(ptr, path)                                       \
	({                                                            \
		__typeof__((ptr)->path) __value = { 0 };              \
		read_kernel(&__value, sizeof(__value), &(ptr)->path); \
		__value;                                              \
	})

#if PROBED
#define READ(ptr, path) READ_UNTYPED(ptr, path)
#define READ_BITS(ptr, member)                                                 \
	({                                                                     \
		__typeof__((ptr)->__bits_##member) __unit = {};                \
		read_kernel(&__unit, sizeof(__unit), &(ptr)->__bits_##member); \
		__unit.value;                                                  \
	})
#define TCP_SOCK(sk) ((struct tcp_sock *)(sk))
#else
#define READ(ptr, path) ((ptr)->path)
#define READ_BITS(ptr, member) ((ptr)->__bits_##member.value)
#define TCP_SOCK(sk) bpf_skc_to_tcp_sock(sk)
#endif

/* Contexts of the syscall tracepoints: syscalls/sys_enter_* and sys_exit_*. */
struct syscall_enter {
	u64 common;
	s64 number;
	u64 args[6];
};

struct syscall_exit {
	u64 common;
	s64 number;
	s64 result;
};

/* HEADER in ipc/record.py. */
struct event_header {
	u64 time_ns;
	u64 netns_cookie;
	u32 netns_inum;
	u16 tuner;
	u16 scenario;
	u32 suppressed;
	u32 pad;
};

struct settings {
	u32 shift;
	u32 supervisor_pid;
	u32 dry_run;
	u32 pad;
};

/* One tuner in one namespace. */
struct place {
	u64 netns_cookie;
	u32 tuner;
	u32 scenario;
};

struct rate {
	u64 last_ns;
	u32 suppressed;
	u32 pad;
};

struct counters {
	u64 sent;
	u64 suppressed;
	u64 dropped;
};

struct sample {
	u64 last_ns;
	u32 calls;
	u32 shift;
};

/* Shared by all tuners: the loader knows them by their prefix and creates each once. */
BPF_RINGBUF_OUTPUT(shared_events, 64);
BPF_ARRAY(shared_settings, struct settings, 1);
BPF_TABLE("hash", struct place, u8, shared_off, 16384);
BPF_TABLE("hash", struct place, u8, shared_changed, 16384);
BPF_TABLE("lru_hash", struct place, struct rate, shared_rates, 16384);
BPF_TABLE("percpu_hash", u32, struct counters, shared_counters, 512);

#if MIRROR_COUNT
/* As wide as a tunable may be. */
struct tunable {
	s64 fields[8];
};

BPF_ARRAY(mirror, struct tunable, MIRROR_COUNT);

static __always_inline s64 read_mirror(int index, int field)
{
	struct tunable *tunable = mirror.lookup(&index);

	return tunable ? tunable->fields[field & 7] : 0;
}

#define TUNABLE(name, field) read_mirror(MIRROR_##name, field)
#endif

/* One slot per probe of this tuner. */
BPF_PERCPU_ARRAY(samples, struct sample, PROBE_COUNT);

static __always_inline bool near_full(s64 value, s64 limit)
{
	int zero = 0;
	struct settings *settings = shared_settings.lookup(&zero);

	if (!settings)
		return false;
	return value + (limit >> (settings->shift & 63)) >= limit;
}

static __always_inline s64 learned(s64 old, s64 seen)
{
	int zero = 0;
	struct settings *settings = shared_settings.lookup(&zero);

	return settings ? old + ((seen - old) >> (settings->shift & 63)) : old;
}

static __always_inline bool is_supervisor(void)
{
	int zero = 0;
	struct settings *settings = shared_settings.lookup(&zero);

	return settings && settings->supervisor_pid == bpf_get_current_pid_tgid() >> 32;
}

static __always_inline bool is_dry_run(void)
{
	int zero = 0;
	struct settings *settings = shared_settings.lookup(&zero);

	return !settings || settings->dry_run;
}

static __always_inline bool is_off(struct net *net)
{
	struct place place = { .netns_cookie = READ(net, net_cookie), .tuner = TUNER_ID };

	return shared_off.lookup(&place);
}

static __always_inline bool is_changed(struct net *net)
{
	struct place place = { .netns_cookie = READ(net, net_cookie), .tuner = TUNER_ID };

	return shared_changed.lookup(&place);
}

/*
 * A sample that comes less than 10 ms after the one before halves the rate, a later one doubles
 * it again up to 1 in 4: a hot hook settles near 100 samples per second and CPU.
 */
static __always_inline bool sampled_slot(int slot)
{
	struct sample *sample = samples.lookup(&slot);
	u64 now_ns, spacing_ns;

	if (!sample)
		return false;
	if (sample->shift < SAMPLE_SHIFT_MIN)
		sample->shift = SAMPLE_SHIFT_MIN;
	if (++sample->calls & ((1U << (sample->shift & 31)) - 1))
		return false;
	now_ns = bpf_ktime_get_ns();
	spacing_ns = now_ns - sample->last_ns;
	sample->last_ns = now_ns;
	if (spacing_ns > SAMPLE_RESET_NS)
		sample->shift = SAMPLE_SHIFT_MIN;
	else if (spacing_ns < SAMPLE_SPACING_NS && sample->shift < SAMPLE_SHIFT_MAX)
		sample->shift++;
	else if (spacing_ns >= SAMPLE_SPACING_NS && sample->shift > SAMPLE_SHIFT_MIN)
		sample->shift--;
	return true;
}

#define sampled(probe) sampled_slot(PROBE_SLOT_##probe)

/*
 * Whether an event may go out now. Two CPUs that ask at the same instant may both be told yes;
 * a compare-and-exchange would need a newer instruction set than every supported kernel takes.
 */
static __always_inline bool rate_allows(struct place *place, struct counters *counters,
					struct event_header *header)
{
	struct rate fresh = { .last_ns = header->time_ns };
	struct rate *rate = shared_rates.lookup(place);

	if (!rate) {
		shared_rates.update(place, &fresh);
		return true;
	}
	if (header->time_ns - rate->last_ns < EVENT_INTERVAL_NS) {
		__sync_fetch_and_add(&rate->suppressed, 1);
		counters->suppressed++;
		return false;
	}
	rate->last_ns = header->time_ns;
	header->suppressed = rate->suppressed;
	rate->suppressed = 0;
	return true;
}

/* Decides on an event and fills its header. NULL: it does not go out. */
static __always_inline struct counters *admit(u32 scenario, struct net *net,
					      struct event_header *header, bool limited)
{
	u32 slot = TUNER_ID << 16 | scenario;
	struct counters *counters = shared_counters.lookup(&slot);
	struct place place = { .tuner = TUNER_ID };

	if (!counters || !net)
		return NULL;
	place.netns_cookie = READ(net, net_cookie);
	if (shared_off.lookup(&place))
		return NULL;
	place.scenario = scenario;
	header->time_ns = bpf_ktime_get_ns();
	header->netns_cookie = place.netns_cookie;
	header->netns_inum = READ(net, ns.inum);
	header->tuner = TUNER_ID;
	header->scenario = scenario;
	header->suppressed = 0;
	if (limited && !rate_allows(&place, counters, header))
		return NULL;
	return counters;
}

static __always_inline int send_event(u32 scenario, struct net *net, struct event_header *header,
				      u64 size, bool limited)
{
	struct counters *counters = admit(scenario, net, header, limited);

	if (!counters)
		return -1;
	if (shared_events.ringbuf_output(header, size, 0)) {
		counters->dropped++;
		return -1;
	}
	counters->sent++;
	return 0;
}

/* Per-CPU scratch would not do: a program may be preempted by another task that runs it too. */
static __always_inline void *reserve_event(u32 scenario, u64 size)
{
	u32 slot = TUNER_ID << 16 | scenario;
	struct counters *counters = shared_counters.lookup(&slot);
	void *event;

	if (!counters)
		return NULL;
	event = shared_events.ringbuf_reserve(size);
	if (event)
		__builtin_memset(event, 0, size);
	else
		counters->dropped++;
	return event;
}

static __always_inline int send_reserved(u32 scenario, struct net *net, struct event_header *header)
{
	struct counters *counters = admit(scenario, net, header, false);

	if (!counters) {
		shared_events.ringbuf_discard(header, 0);
		return -1;
	}
	shared_events.ringbuf_submit(header, 0);
	counters->sent++;
	return 0;
}

#define SEND(scenario, net, event)                                                              \
	send_event(SCENARIO_##scenario, net, &(event)->header, sizeof(struct event_##scenario), \
		   true)
#define SEND_ALWAYS(scenario, net, event)                                                       \
	send_event(SCENARIO_##scenario, net, &(event)->header, sizeof(struct event_##scenario), \
		   false)
#define LARGE_EVENT(scenario) reserve_event(SCENARIO_##scenario, sizeof(struct event_##scenario))
#define SEND_LARGE(scenario, net, event) send_reserved(SCENARIO_##scenario, net, &(event)->header)

#if defined(HAVE_task_struct__nsproxy) && defined(HAVE_nsproxy__net_ns)
/* A task that is exiting has no nsproxy any more. */
static __always_inline struct net *current_net(void)
{
	struct task_struct *task = (void *)bpf_get_current_task_btf();
	struct nsproxy *nsproxy = READ(task, nsproxy);

	return nsproxy ? READ(nsproxy, net_ns) : NULL;
}
#endif
