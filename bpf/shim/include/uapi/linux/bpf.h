/* SPDX-License-Identifier: GPL-2.0-or-later */
/* BCC brings its own copy, which is included in front of this. */
