/* SPDX-License-Identifier: GPL-2.0-or-later */
/* BCC includes it for packet programs, which no probe is. */
