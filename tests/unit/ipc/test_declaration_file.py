# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

from pathlib import Path

import pytest

from bpftune.ipc.declaration import Declaration
from bpftune.ipc.declaration_file import load_declaration
from bpftune.ipc.errors import DeclarationError

SHIPPED = Path(__file__).resolve().parents[3] / "tuners"

SMALL = """
name = "small"
description = "a tuner for the test"

[[tunables]]
name = "net.core.somaxconn"
scope = "netns"
floor = 128
cap = "max(original, 65535)"

[[scenarios]]
id = "near_limit"
name = "the limit is near"
tunable = "net.core.somaxconn"
why = "Because it is."
reason = "the limit being near"
event = ["u32 value", "u64 limits[3]"]

[[probes]]
name = "watch"
scenarios = ["near_limit"]
hooks = ["tp_btf:some_event", "kprobe:some_function(1,0)"]
"""


def load(tmp_path: Path, text: str, name: str = "small") -> Declaration:
    folder = tmp_path / name
    folder.mkdir()
    (folder / "tuner.toml").write_text(text)
    return load_declaration(folder)


def test_a_declaration_is_read(tmp_path: Path) -> None:
    declaration = load(tmp_path, SMALL)
    assert declaration.tunables_by_name["net.core.somaxconn"].bounds("floor") == ["128"]
    fields = declaration.scenarios_by_id["near_limit"].fields
    assert [(field.type, field.name, field.count) for field in fields] == [
        ("u32", "value", 0),
        ("u64", "limits", 3),
    ]
    assert [str(hook) for hook in declaration.probes[0].ladder] == [
        "tp_btf:some_event",
        "kprobe:some_function",
    ]
    assert declaration.probes[0].ladder[1].arguments == (1, 0)


@pytest.mark.parametrize(
    ("old", "new", "cause"),
    [
        ('name = "small"', 'name = "other"', "declares the name 'other'"),
        ('name = "small"', 'name = "Small!"', "name"),
        ("floor = 128", "floor = [1, 2]", "1 fields but 2 floors"),
        ("max(original, 65535)", "max(original", "bound"),
        ("max(original, 65535)", "max(original, field1)", "has no field1, which its cap names"),
        ("floor = 128", 'floor = "field2/2"', "has no field2, which its floor names"),
        ("Because it is.", "x" * (64 << 10), "larger than 65536 bytes"),
        ('tunable = "net.core.somaxconn"', 'tunable = "net.core.other"', "unknown tunable"),
        ('scenarios = ["near_limit"]', 'scenarios = ["far_limit"]', "far_limit"),
        ('"u32 value"', '"float value"', "cannot parse event field"),
        ('"u32 value"', '"u32 limits"', "declared twice"),
        ("tp_btf:some_event", "lsm:file_open", "cannot parse hook"),
        ('"tp_btf:some_event", ', '"poll", ', "go together"),
        ('scope = "netns"', 'scope = "netns"\nsurprise = 1', "surprise"),
        ('scope = "netns"', 'scope = "galaxy"', "galaxy"),
        ('scope = "netns"', 'scope = "netns"\nmirror = true', "cannot be mirrored"),
        ('event = ["u32', 'counters = ["lost"]\nevent = ["u32', "unknown counter 'lost'"),
        ("hooks = [", 'needs = ["ABSENT"]\nhooks = [', "needs 'ABSENT', which [enums] does not name"),
        ("[[tunables]]", "[[tunables", "Expected"),
    ],
)
def test_a_wrong_declaration_gets_one_clear_error(tmp_path: Path, old: str, new: str, cause: str) -> None:
    assert old in SMALL
    with pytest.raises(DeclarationError) as caught:
        load(tmp_path, SMALL.replace(old, new, 1))
    assert cause in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_declaration_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DeclarationError, match=r"No such file"):
        load_declaration(tmp_path)


@pytest.mark.parametrize("folder", sorted(SHIPPED.glob("*/tuner.toml")), ids=lambda path: path.parent.name)
def test_shipped_declarations_are_valid(folder: Path) -> None:
    assert load_declaration(folder.parent).tunables


COUNTER = """
[[counters]]
name = "lost"
file = "/proc/net/snmp"
match = 'Udp: (\\d+)'
"""


def test_counters_are_checked(tmp_path: Path) -> None:
    assert load(tmp_path, SMALL + COUNTER).counters_by_name["lost"].file == "/proc/net/snmp"
    other = SMALL.replace("small", "other") + COUNTER.replace("(", "").replace(")", "")
    with pytest.raises(DeclarationError, match="its match needs one group"):
        load(tmp_path, other, "other")
    neither = SMALL.replace("small", "neither") + COUNTER.replace("match", "# match")
    with pytest.raises(DeclarationError, match="either a match or a column"):
        load(tmp_path, neither, "neither")


def test_an_event_is_repeated_for_counters_of_its_own_only(tmp_path: Path) -> None:
    named = SMALL.replace("event =", 'counters = ["lost"]\nrepeat_while_rising = ["lost"]\nevent =') + COUNTER
    assert load(tmp_path, named).scenarios[0].repeat_while_rising == ["lost"]
    other = named.replace("small", "other").replace('counters = ["lost"]\n', "")
    with pytest.raises(DeclarationError, match="not one of its own"):
        load(tmp_path, other, "other")


def test_global_tunables_may_be_mirrored(tmp_path: Path) -> None:
    text = SMALL.replace('scope = "netns"', 'scope = "global"\nmirror = true', 1)

    assert [tunable.name for tunable in load(tmp_path, text).mirrored] == ["net.core.somaxconn"]


POLLED = (
    SMALL.replace('"tp_btf:some_event"', '"tp_btf:some_event", "poll"')
    + """
[probes.poll]
file = "/proc/net/softnet_stat"
match = "^([0-9a-f]+)"
rise = 2
value_event_field = "value"
scenario = "near_limit"
follows = "near_limit"
"""
)


def test_a_poll_that_watches_a_rise(tmp_path: Path) -> None:
    poll = load(tmp_path, POLLED).probes[0].poll
    assert poll is not None
    assert (poll.rise, poll.limit, poll.follows) == (2, "", "near_limit")


@pytest.mark.parametrize(
    ("old", "new", "cause"),
    [
        ("rise = 2", "", "either a limit or a rise"),
        ("rise = 2", 'rise = 2\nlimit = "net.core.somaxconn"', "either a limit or a rise"),
        ("rise = 2", 'limit = "net.core.other"', "unknown tunable"),
        ('"value"', '"colour"', "unknown field"),
        ('follows = "near_limit"', 'follows = "far_limit"', "far_limit"),
        ("rise = 2", 'limit = "net.core.somaxconn"\nlimit_field = 1', "unknown tunable or field"),
        ("rise = 2", 'limit = "net.core.somaxconn"\nlimit_field = -1', "unknown tunable or field"),
        ("([0-9a-f]+)", "([0-9a-f]+", "unterminated"),
        ("([0-9a-f]+)", "[0-9a-f]+", "needs one group"),
        ("([0-9a-f]+)", "([0-9])([a-f]+)", "needs one group"),
    ],
)
def test_a_wrong_poll_gets_one_clear_error(tmp_path: Path, old: str, new: str, cause: str) -> None:
    with pytest.raises(DeclarationError, match=cause):
        load(tmp_path, POLLED.replace(old, new, 1))


def test_a_tuner_may_say_when_it_is_of_no_use(tmp_path: Path) -> None:
    rule = '[[inactive_when]]\ntunable = "net.core.somaxconn"\nat_least = 9\nwhy = "w"\n'
    (read,) = load(tmp_path, SMALL + rule).inactive_when
    assert (read.tunable, read.field, read.at_least) == ("net.core.somaxconn", 0, 9)
    for wrong in (rule.replace("somaxconn", "other"), rule + "field = 1\n"):
        with pytest.raises(DeclarationError, match="inactive_when"):
            load(tmp_path, SMALL + wrong, name=f"small{len(wrong)}")


CHOOSY = (
    SMALL
    + """
[[probes]]
name = "look"
scenarios = ["near_limit"]
hooks = ["iter:tcp"]

[[probes]]
name = "always"
scenarios = ["near_limit"]
hooks = ["tp_btf:some_event"]

[[strategies]]
name = "watching"
description = "waits for events"
timeout_s = 30
probes = ["watch"]

[[strategies]]
name = "looking"
description = "looks by itself"
timeout_s = 1
probes = ["look", "watch"]
"""
)


def test_a_tuner_may_have_strategies(tmp_path: Path) -> None:
    declaration = load(tmp_path, CHOOSY)
    watching, looking = declaration.strategies
    assert (watching.name, watching.timeout_s, watching.probes) == ("watching", 30, ["watch"])
    assert declaration.probes_with(watching) == ["watch", "always"]
    assert declaration.probes_with(looking) == ["watch", "look", "always"]
    assert [probe.iterates for probe in declaration.probes] == [False, True, False]


def test_without_strategies_there_are_none(tmp_path: Path) -> None:
    assert load(tmp_path, SMALL).strategies == []


@pytest.mark.parametrize(
    ("old", "new", "cause"),
    [
        ('probes = ["watch"]', 'probes = ["wach"]', "strategy 'watching' names unknown probe 'wach'"),
        ('probes = ["watch"]', 'probes = ["watch", "watch"]', "'watch' is declared twice"),
        ('probes = ["watch"]', "", "probes"),
        ('name = "looking"', 'name = "watching"', "strategy 'watching' is declared twice"),
        ('name = "looking"', 'name = "Looking!"', "name"),
        ("timeout_s = 1", "timeout_s = 0", "timeout_s"),
        ("timeout_s = 1", "timeout_s = 0.5", "timeout_s"),
        ("timeout_s = 1", "timeout_s = 99999999", "timeout_s"),
        ('description = "looks by itself"', "", "description"),
        (CHOOSY[CHOOSY.rindex("[[strategies]]") :], "", "strategy 'watching' has no alternative"),
    ],
)
def test_a_wrong_strategy_gets_one_clear_error(tmp_path: Path, old: str, new: str, cause: str) -> None:
    assert old in CHOOSY
    with pytest.raises(DeclarationError) as caught:
        load(tmp_path, CHOOSY.replace(old, new, 1))
    assert cause in str(caught.value)


TABLED = (
    SMALL
    + """
[[tables]]
map = "places"
key = ["u64 netns_cookie", "u32 address"]
value = ["u32 seen", "u64 rates[4]"]
"""
)


def test_a_table_is_read(tmp_path: Path) -> None:
    (table,) = load(tmp_path, TABLED).tables
    assert table.map == "places"
    assert table.per_netns
    assert [field.name for field in (*table.key_fields, *table.value_fields)] == [
        "netns_cookie",
        "address",
        "seen",
        "rates",
    ]


def test_a_table_that_does_not_begin_with_the_cookie_is_no_namespaces(tmp_path: Path) -> None:
    (table,) = load(tmp_path, TABLED.replace('"u64 netns_cookie", ', "")).tables
    assert not table.per_netns


@pytest.mark.parametrize(
    ("old", "new", "cause"),
    [
        ('"u32 seen"', '"u32 address"', "field of map 'places' 'address' is declared twice"),
        ('"u32 seen"', '"char seen"', "cannot parse event field"),
        ('key = ["u64 netns_cookie", "u32 address"]', "key = []", "key"),
        ('map = "places"', 'map = "Places!"', "map"),
    ],
)
def test_a_wrong_table_gets_one_clear_error(tmp_path: Path, old: str, new: str, cause: str) -> None:
    assert old in TABLED
    with pytest.raises(DeclarationError, match=cause):
        load(tmp_path, TABLED.replace(old, new))
