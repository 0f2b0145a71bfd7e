// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Runs in the writer's context before the kernel parses the value, so it sees writes that will fail
 * as well, and always lets them pass. The namespace is that of the writing task: a descriptor that
 * was opened in one namespace and is written to in another is taken for the latter's.
 */
#include "bpftune.h"

PROBE_CTX(sysctl_write, struct bpf_sysctl *ctx)
{
	struct event_sysctl_write *e;

	if (!ctx->write || is_supervisor())
		return 1;
	e = LARGE_EVENT(sysctl_write);
	if (!e)
		return 1;
	e->pid = bpf_get_current_pid_tgid() >> 32;
	e->uid = bpf_get_current_uid_gid();
	e->file_pos = ctx->file_pos;
	bpf_get_current_comm(e->comm, sizeof(e->comm));
	bpf_sysctl_get_name(ctx, (char *)e->key, sizeof(e->key), 0);
	e->new_length = bpf_sysctl_get_new_value(ctx, (char *)e->new_value, sizeof(e->new_value));
	e->current_length = bpf_sysctl_get_current_value(ctx, (char *)e->current_value,
							 sizeof(e->current_value));
	SEND_LARGE(sysctl_write, current_net(), e);
	return 1;
}
