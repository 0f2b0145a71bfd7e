// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A network namespace begins, whoever asked for it and how. Nothing here is rate limited: every
 * namespace counts.
 */
#include "bpftune.h"

/* Its cookie and inode number are set by now; no process is in it yet. */
PROBE(setup, struct net *net, int error)
{
	struct event_netns_created e = { .pid = bpf_get_current_pid_tgid() >> 32 };

	if (!error)
		SEND_ALWAYS(netns_created, net, &e);
	return 0;
}
