# SPDX-License-Identifier: GPL-2.0-or-later
"""The floor and cap formulas of tuner.toml: `min(2147483647, memory_bytes/32)`.

    formula  = term | ("min" | "max") "(" formula {"," formula} ")"
    term     = integer | quantity [("*" | "/") integer]

Quantities are what the supervisor knows when it checks a proposal; a formula with another word is
refused when the folder is loaded.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

QUANTITIES = frozenset(
    {
        "memory_pages",  # managed pages above the high watermark
        "memory_bytes",  # the same in bytes
        "original",  # the administrator's value of this field
        "field0",  # current value of a field of the same tunable
        "field1",
        "field2",
        "prefix_hosts",  # hosts in the prefixes configured on the proposal's device
        "all_cpus",  # the mask of every CPU that this machine can have
    }
)

_TOKEN = re.compile(r"\s*(?:(\d+)|([a-z][a-z0-9_]*)|([(),*/]))")

Quantities = Mapping[str, int]
Formula = Callable[[Quantities], int]


def parse_bound(text: str) -> Formula:
    """Compile a formula; the result maps quantities to an integer. ValueError says what is wrong."""
    tokens = _tokens(text)
    formula = _formula(tokens)
    if tokens:
        raise ValueError(f"unexpected '{tokens[0]}' in bound '{text}'")
    return formula


def quantities_in(text: str) -> frozenset[str]:
    """The quantities that a formula names."""
    return QUANTITIES.intersection(_tokens(text))


def _tokens(text: str) -> list[str]:
    tokens = []
    position = 0
    while position < len(text.rstrip()):
        match = _TOKEN.match(text, position)
        if match is None:
            raise ValueError(f"unexpected '{text[position:].strip()[:1]}' in bound '{text}'")
        tokens.append(match.group().strip())
        position = match.end()
    return tokens


def _take(tokens: list[str], expected: str | None = None) -> str:
    if not tokens:
        raise ValueError("bound ends too early")
    token = tokens.pop(0)
    if expected is not None and token != expected:
        raise ValueError(f"expected '{expected}', found '{token}'")
    return token


def _formula(tokens: list[str]) -> Formula:
    token = _take(tokens)
    if token in ("min", "max"):
        choose = min if token == "min" else max
        _take(tokens, "(")
        parts = [_formula(tokens)]
        while (separator := _take(tokens)) == ",":
            parts.append(_formula(tokens))
        if separator != ")":
            raise ValueError(f"expected ',' or ')', found '{separator}'")
        return lambda known: choose(part(known) for part in parts)
    return _term(token, tokens)


def _term(token: str, tokens: list[str]) -> Formula:
    if token.isdigit():
        constant = int(token)
        return lambda known: constant
    if token not in QUANTITIES:
        raise ValueError(f"unknown quantity '{token}'; known: {', '.join(sorted(QUANTITIES))}")
    if not tokens or tokens[0] not in "*/":
        return lambda known: known[token]
    operator = tokens.pop(0)
    text = _take(tokens)
    if not text.isdigit() or int(text) == 0:
        raise ValueError(f"'{operator}' needs a positive integer, found '{text}'")
    operand = int(text)
    if operator == "*":
        return lambda known: known[token] * operand
    return lambda known: known[token] // operand
