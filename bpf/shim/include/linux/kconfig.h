/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The options that BCC's headers ask for. */
#ifndef SHIM_LINUX_KCONFIG_H
#define SHIM_LINUX_KCONFIG_H

#define CONFIG_BPF_SYSCALL 1
#define CONFIG_64BIT 1

#endif
