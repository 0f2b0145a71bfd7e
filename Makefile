# SPDX-License-Identifier: GPL-2.0-or-later
#
# make run and make test install what is missing (tools/setup) and are quick the second time.

PYTEST := .venv/bin/python -m pytest
PREFIX ?= /usr/local
DESTDIR ?=
SUITE ?= bookworm
LOCKDOWN ?=

.PHONY: help run test test-vm setup lint unit process kernel demo bench install uninstall deb rpm test-packages clean
.DEFAULT_GOAL := help

help: ## this list
	@sed -n 's/^\([a-z-]*\):.* ## \(.*\)/make \1	\2/p' $(MAKEFILE_LIST) | expand -t 20

run: ## tune this machine in the foreground until Ctrl-C; ARGS='--dry-run' passes options
	@tools/setup run
	@exec .venv/bin/bpftune -s $(ARGS)

test: setup ## every check: linters, unit, process and kernel tests; ARGS='-k rmem' passes options
	@exec $(PYTEST) $(ARGS)

test-vm: ## kernel tests on Debian's kernel in QEMU, the service under its systemd; SUITE=trixie LOCKDOWN=confidentiality
	@tools/setup test-vm
	@exec .venv/bin/python -m tests.vm --suite '$(SUITE)' --lockdown '$(LOCKDOWN)' $(if $(EVERY),--every) -- $(ARGS)

setup: ## install what the tests need, nothing else
	@tools/setup test

lint: setup ## ruff, mypy, clang-format, shellcheck, import layers
	@exec $(PYTEST) -q tests/test_linters.py tests/test_layers.py $(ARGS)

unit: setup ## tests without privilege
	@exec $(PYTEST) tests/unit $(ARGS)

process: setup ## tests with real processes and sockets
	@exec $(PYTEST) tests/process $(ARGS)

kernel: setup ## tests with real BPF programs and traffic, in their own namespaces (root)
	@exec $(PYTEST) tests/kernel $(ARGS)

demo: setup ## a too small tcp_rmem, a bulk transfer, and what bpftune does about it
	@exec tools/demo

bench: setup ## measure start, memory, wake-ups, latency and throughput; prints a table
	@exec .venv/bin/python tools/bench.py $(ARGS)

install: ## install into $(DESTDIR)$(PREFIX) with the systemd unit
	@tools/setup install
	@exec tools/install '$(DESTDIR)' '$(PREFIX)'

uninstall: ## remove what make install put there; the ledger in /var/lib/bpftune stays
	@exec tools/uninstall '$(DESTDIR)' '$(PREFIX)'

deb: ## a Debian package in dist/, for Debian 12 and newer; VERSION, REVISION
	@tools/setup deb
	@exec tools/package deb

rpm: ## the same as an rpm package in dist/
	@tools/setup rpm
	@exec tools/package rpm

test-packages: ## build both packages; install, upgrade and remove them in fresh Debian 12 and 13 (root)
	@tools/setup packages
	@exec $(PYTEST) tests/packages -m '' $(ARGS)

clean: ## remove the venv, caches and build output
	@rm -rf .venv build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis *.egg-info src/*.egg-info
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
