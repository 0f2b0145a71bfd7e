/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * BCC's headers choose between old and new helpers by version; every kernel with BTF is new
 * enough for the newer ones. No probe may ask for the version: probe for the fact instead.
 */
#define KERNEL_VERSION(a, b, c) (((a) << 16) + ((b) << 8) + ((c) > 255 ? 255 : (c)))
#define LINUX_VERSION_CODE KERNEL_VERSION(5, 14, 0)
