// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * For kernels that refuse watch_netns. A network namespace begins with clone(CLONE_NEWNET) or
 * unshare(CLONE_NEWNET); setns() only joins. A tracepoint of one system call makes every system
 * call of every process a little slower, which is why this is not the first choice.
 */
#include "bpftune.h"

#define CLONE_NEWNET 0x40000000

/* Flags of the unshare calls under way, by thread; lru: a thread may be killed inside the call. */
BPF_TABLE("lru_hash", u64, u64, unshare_flags, 1024);

static __always_inline int report(struct net *net, u32 pid)
{
	struct event_netns_created e = { .pid = pid };

	return SEND_ALWAYS(netns_created, net, &e);
}

/* In the parent's context, when the child is complete and has not run yet. */
PROBE(netns_clone, struct task_struct *task, u64 clone_flags)
{
	struct nsproxy *nsproxy;

	if (!(clone_flags & CLONE_NEWNET))
		return 0;
	nsproxy = READ(task, nsproxy);
	if (nsproxy)
		report(READ(nsproxy, net_ns), READ(task, tgid));
	return 0;
}

PROBE_CTX(unshare_enter, struct syscall_enter *ctx)
{
	u64 thread = bpf_get_current_pid_tgid();
	u64 flags = ctx->args[0];

	if (flags & CLONE_NEWNET)
		unshare_flags.update(&thread, &flags);
	return 0;
}

/* The task is in its new namespace once the call has succeeded. */
PROBE_CTX(unshare_exit, struct syscall_exit *ctx)
{
	u64 thread = bpf_get_current_pid_tgid();

	if (!unshare_flags.lookup(&thread))
		return 0;
	unshare_flags.delete(&thread);
	if (ctx->result == 0)
		report(current_net(), thread >> 32);
	return 0;
}
