/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Only BPF_RINGBUF_OUTPUT multiplies by it. */
#define PAGE_SIZE 4096UL
