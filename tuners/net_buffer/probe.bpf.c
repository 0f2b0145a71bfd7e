// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Where incoming packets wait for a CPU: drops from its backlog, and bursts long enough to use up
 * what one round of processing may take. How often that happened is the kernel's own count, which
 * the supervisor reads while such bursts last.
 */
#include "bpftune.h"

#define SECOND_NS 1000000000ULL

/* What the second event of a storm stands for, unless the first one stood for more. */
#define DROPS_LEAST 8

/* A drop rate tells nothing about times longer ago. */
#define DROPS_INTERVAL_MAX_NS (10 * SECOND_NS)

/* So many packets in so short a time: 16000 per second while it lasts. */
#define BURST_PACKETS 128
#define BURST_NS 8000000ULL

#define LOAD_STALE_NS (5 * SECOND_NS)

struct drops {
	u64 pending;
	u64 sent;
	u64 sent_ns;
};

struct load {
	u64 burst;
	u64 mark_ns;
	u64 packets;
	u64 waiting;
	u64 running;
	u64 run_delay_ns;
	u64 cpu_time_ns;
	u64 sent_ns;
};

BPF_PERCPU_ARRAY(cpu_drops, struct drops, 1);
BPF_PERCPU_ARRAY(cpu_load, struct load, 1);

/* An event at once, then for twice as many drops each time, but at least once per second. */
static __always_inline bool is_due(struct drops *drops, u64 age_ns)
{
	u64 wanted = 2 * drops->sent;

	if (wanted < DROPS_LEAST)
		wanted = DROPS_LEAST;
	return age_ns >= SECOND_NS || drops->pending >= wanted;
}

/*
 * The packet is freed by the CPU that wanted to queue it, which with RPS is not the one whose
 * backlog is full. It is the former's bit in flow_limit_cpu_bitmap that counts.
 */
PROBE(drop, struct sk_buff *skb, u32 reason)
{
#ifdef SKB_DROP_REASON_CPU_BACKLOG
	struct event_backlog_drops e = {};
	struct net_device *dev;
	struct drops *drops;
	u64 now_ns, age_ns;
	int zero = 0;

	if (reason != SKB_DROP_REASON_CPU_BACKLOG)
		return 0;
	drops = cpu_drops.lookup(&zero);
	dev = READ(skb, dev);
	if (!drops || !dev)
		return 0;
	drops->pending++;
	now_ns = bpf_ktime_get_ns();
	age_ns = now_ns - drops->sent_ns;
	if (!is_due(drops, age_ns))
		return 0;
	e.drops = drops->pending;
	e.interval_ns = age_ns < DROPS_INTERVAL_MAX_NS ? age_ns : 0;
	e.cpu_number = bpf_get_smp_processor_id() + 1;
	if (SEND(backlog_drops, READ(dev, nd_net.net), &e))
		return 0;
	drops->sent = drops->pending;
	drops->sent_ns = now_ns;
	drops->pending = 0;
#endif
	return 0;
}

/*
 * Tasks that wait for this CPU, over those that run: in nanoseconds where the scheduler counts
 * them, else in samples of the run queue's length.
 */
static __always_inline void look_at_run_queue(struct load *load)
{
#if defined(HAVE_task_struct__se_cfs_rq) && defined(HAVE_cfs_rq__rq) && defined(HAVE_rq__nr_running)
	struct task_struct *task = (void *)bpf_get_current_task_btf();
	struct rq *rq = READ(READ(task, se.cfs_rq), rq);
#if defined(HAVE_rq__rq_sched_info_run_delay) && defined(HAVE_rq__rq_cpu_time)
	u64 run_delay_ns = READ(rq, rq_sched_info.run_delay);
	u64 cpu_time_ns = READ(rq, rq_cpu_time);

	if (load->cpu_time_ns) {
		load->waiting += run_delay_ns - load->run_delay_ns;
		load->running += cpu_time_ns - load->cpu_time_ns;
	}
	load->run_delay_ns = run_delay_ns;
	load->cpu_time_ns = cpu_time_ns;
#else
	u32 runnable = READ(rq, nr_running);

	if (runnable) {
		load->waiting += runnable - 1;
		load->running++;
	}
#endif
#endif
}

/* One NAPI instance was polled and has delivered `packets`. */
PROBE(load, int packets)
{
	struct event_receive_load e = {};
	u64 now_ns, burst_ns, age_ns;
	struct load *load;
	int zero = 0;

	load = cpu_load.lookup(&zero);
	if (!load || packets <= 0)
		return 0;
	load->burst += packets;
	if (load->burst < BURST_PACKETS)
		return 0;
	now_ns = bpf_ktime_get_ns();
	burst_ns = now_ns - load->mark_ns;
	age_ns = now_ns - load->sent_ns;
	load->mark_ns = now_ns;
	if (age_ns > LOAD_STALE_NS) {
		load->packets = 0;
		load->waiting = 0;
		load->running = 0;
	}
	load->packets += load->burst;
	load->burst = 0;
	look_at_run_queue(load);
	if (burst_ns > BURST_NS || age_ns < SECOND_NS)
		return 0;
	e.packets = load->packets;
	e.interval_ns = age_ns;
	e.waiting = load->waiting;
	e.running = load->running;
	if (SEND(receive_load, current_net(), &e))
		return 0;
	load->packets = 0;
	load->waiting = 0;
	load->running = 0;
	load->sent_ns = now_ns;
	return 0;
}
