/* SPDX-License-Identifier: GPL-2.0-or-later */
/* BCC includes it for stack trace maps, which no probe has. */
