"""Decisions: tables and properties."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from refusals import refused

from labshell.errors import LabshellError, NotAllowed, UsageError
from labshell.model import forwards
from labshell.model.access import Caller, may_use_gateway
from labshell.model.addresses import choose_address
from labshell.model.container import Container, OwnForward
from labshell.model.forwards import Forward
from labshell.model.keys import PublicKey, choose_key
from labshell.model.names import checked_name, existing_name
from labshell.model.ports import PortPool, choose_block, conflict_with_block, parse_port_file
from labshell.model.snapshots import name_of_snapshot
from labshell.model.usage import is_full

QUICK = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
POOL = PortPool(20000, 20099, 10)
POOLS = st.builds(
    lambda first, length, size: PortPool(first, first + length, size),
    st.integers(1024, 1100),
    st.integers(1, 120),
    st.integers(1, 25),
)
NEARBY = st.sets(st.integers(1000, 1250), max_size=40)
FORWARDS = st.lists(
    st.builds(Forward, st.integers(1, 50), st.sampled_from("ab"), st.sampled_from(["10.0.0.2", "10.0.0.3"]))
)


@pytest.mark.parametrize("name", ["ab", "alice", "a1", "x" * 32, "li-wei2"])
def test_an_ordinary_name_is_taken(name: str) -> None:
    assert checked_name(name) == name


@pytest.mark.parametrize(
    "name",
    ["", "a", "a/b", "..", "a b", "Alice", "x" * 33, "root", "nobody", "template", "1a", "-a", "a-", "a--b", "a\n", "ü1", "a１",
     "a_b", "a.b", "a;id", "a$(id)", "a\0b", "\na", "a\r", "--", "ab--", "../a", "é" * 5, "ａb", "a٣", "aſ", "x" * 1000, True, None, 7, b"ab"],
)  # fmt: skip
def test_any_other_name_is_refused_in_one_line(name: object) -> None:
    with pytest.raises(UsageError) as caught:
        checked_name(name)
    assert "\n" not in str(caught.value)


@QUICK
@given(st.integers(0, 70000), st.sets(st.integers(19980, 20110), max_size=40), st.sets(st.integers(19990, 20110)))
def test_a_chosen_block_lies_in_the_pool_and_touches_nothing(start: int, blocks: set[int], busy: set[int]) -> None:
    taken = busy | {port for first in blocks for port in POOL.block(first)}
    port = choose_block(POOL, start, blocks, busy)
    if port is None:
        assert all(taken & set(POOL.block(first)) for first in range(20000, 20100, 10))
    else:
        assert POOL.fits(port)
        assert not taken & set(POOL.block(port))


@QUICK
@given(POOLS, st.integers(1, 65535), NEARBY, NEARBY)
def test_the_first_free_block_from_next_port_on_is_chosen_and_none_only_when_none_is_free(
    pool: PortPool, start: int, blocks: set[int], busy: set[int]
) -> None:
    taken = busy | {port for first in blocks for port in pool.block(first)}
    aligned = [port for port in range(pool.first, pool.last + 1, pool.size) if pool.fits(port)]
    in_order = [port for port in aligned if port >= start] + [port for port in aligned if port < start]
    free = [port for port in in_order if not taken & set(pool.block(port))]
    assert choose_block(pool, start, blocks, busy) == (free[0] if free else None)


@QUICK
@given(POOLS, NEARBY)
def test_choosing_until_nothing_is_free_gives_every_block_once(pool: PortPool, busy: set[int]) -> None:
    given_out: list[int] = []
    while (port := choose_block(pool, given_out[-1] if given_out else 1, given_out, busy)) is not None:
        given_out.append(port)
    ports = [port for first in given_out for port in pool.block(first)]
    assert len(ports) == len(set(ports))
    assert all(pool.first <= port <= pool.last for port in ports)


@pytest.mark.parametrize("name", ["alice", "Alice", "a", "john_doe", "x.y", "old--1", "nobody", "0ab"])
def test_what_an_odd_name_belongs_to_can_be_named(name: str) -> None:
    assert existing_name(name) == name


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/b", "-x", "a b", "a\n", ".hidden", "a" * 64, "übung", "a;b"])
def test_what_is_no_file_name_belongs_to_nobody(name: str) -> None:
    with refused(UsageError, "user-or-service-missing"):
        existing_name(name)


def test_the_search_starts_at_next_port_and_wraps_once() -> None:
    assert choose_block(POOL, 20000, [], []) == 20000
    assert choose_block(POOL, 20001, [], []) == 20010
    assert choose_block(POOL, 20091, [], []) == 20000
    assert choose_block(POOL, 20090, [20090], []) == 20000
    assert choose_block(POOL, 65000, [], []) == 20000


@pytest.mark.parametrize(
    ("port", "reason"),
    [
        (19999, "do not lie"),
        (20091, "do not lie"),
        (22, "do not lie"),
        (20015, "block of bob"),
        (20050, "listens on port 20055"),
    ],
)
def test_a_port_asked_for_is_refused_with_the_reason(port: int, reason: str) -> None:
    assert reason in (conflict_with_block(POOL, port, {20010: "bob"}, {20055}) or "")


def test_a_free_port_asked_for_is_given_even_between_the_usual_blocks() -> None:
    assert conflict_with_block(POOL, 20033, {20010: "bob"}, {20055}) is None


@pytest.mark.parametrize("port", [20001, 20010, 20019])
def test_a_port_asked_for_may_not_overlap_a_block_at_either_end(port: int) -> None:
    assert conflict_with_block(POOL, port, {20010: "bob"}, ()) == (
        "it overlaps the block of bob, 20010 to 20019"
    )


@QUICK
@given(POOLS, st.integers(1000, 1250), NEARBY, NEARBY)
def test_a_port_asked_for_is_given_exactly_if_its_block_is_in_the_pool_and_free(
    pool: PortPool, port: int, blocks: set[int], busy: set[int]
) -> None:
    taken = busy | {used for first in blocks for used in pool.block(first)}
    wanted = set(range(port, port + pool.size))
    free = wanted <= set(range(pool.first, pool.last + 1)) and not wanted & taken
    assert (conflict_with_block(pool, port, dict.fromkeys(blocks, "bob"), busy) is None) == free


@QUICK
@given(st.integers(-10, 70000))
def test_every_port_is_read_back_as_written_and_no_other_number(number: int) -> None:
    assert parse_port_file(f"{number}\n".encode()) == (number if 1 <= number <= 65535 else None)


@QUICK
@given(st.binary(max_size=8) | st.from_regex(rb"[ +0-9_.ex\r\n-]{0,8}", fullmatch=True))
def test_no_bytes_but_a_port_and_a_newline_are_a_port(content: bytes) -> None:
    port = parse_port_file(content)
    assert port is None or content == f"{port}\n".encode()


@pytest.mark.parametrize("content", [b"20010\n", b"22\n", b"65535\n"])
def test_a_port_file_is_a_number_and_a_newline(content: bytes) -> None:
    assert parse_port_file(content) == int(content)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\n",
        b"20010",
        b"-1\n",
        b"99999\n",
        b"020\n",
        b"0x50\n",
        "２０００１\n".encode(),
        b"20010\r\n",
        b"1\n2\n",
        b"2\0\n",
        b" 22\n",
    ],
)
def test_anything_else_is_no_port_file(content: bytes) -> None:
    assert parse_port_file(content) is None


def test_the_lowest_free_address_is_chosen() -> None:
    assert choose_address("10.83.0.1/24", []) == "10.83.0.2"
    assert choose_address("10.83.0.1/24", ["10.83.0.2", "10.83.0.4"]) == "10.83.0.3"
    assert choose_address("10.83.0.1/24", [], "10.83.0.2-10.83.0.9,10.83.0.11-10.83.0.20") == "10.83.0.10"
    with pytest.raises(LabshellError):
        choose_address("10.83.0.1/30", ["10.83.0.2"])


@pytest.mark.parametrize(
    ("bridge", "taken", "address"),
    [
        ("10.83.0.2/24", [], "10.83.0.1"),
        ("10.83.0.254/24", [f"10.83.0.{number}" for number in range(1, 253)], "10.83.0.253"),
        ("10.83.0.1/16", [f"10.83.0.{number}" for number in range(2, 256)], "10.83.1.0"),
        ("10.83.0.1/24", ["192.0.2.7", "10.83.0.0", "10.83.0.255"], "10.83.0.2"),
        ("10.83.0.129/25", [], "10.83.0.130"),
    ],
)
def test_an_address_is_one_of_the_bridges_and_not_its_own(bridge: str, taken: list[str], address: str) -> None:
    assert choose_address(bridge, taken) == address


@QUICK
@given(st.sets(st.integers(0, 15)), st.integers(1, 14))
def test_a_chosen_address_is_free_and_an_error_means_that_none_is(taken: set[int], own: int) -> None:
    free = [number for number in range(1, 15) if number not in taken | {own}]
    used = [f"10.0.0.{number}" for number in taken]
    if free:
        assert choose_address(f"10.0.0.{own}/28", used) == f"10.0.0.{free[0]}"
        assert choose_address(f"10.0.0.{own}/28", used, is_last=True) == f"10.0.0.{free[-1]}"
    else:
        with refused(LabshellError, "bridge-addresses-exhausted"):
            choose_address(f"10.0.0.{own}/28", used)


def container(
    forwards: tuple[OwnForward, ...] = (),
    name: str = "alice",
    owner: str | None = "alice",
    uid: int | None = 30000,
    address: str | None = "10.0.0.2",
) -> Container:
    return Container(name, "Running", owner, uid, address, forwards=forwards)


@pytest.mark.parametrize(
    "other",
    [container(owner=None), container(owner="bob"), container(uid=30001), container(uid=None), container(address=None),
     container(name="bob"), container(name="carol", owner="alice")],
)  # fmt: skip
def test_only_a_container_with_its_own_owners_mark_is_forwarded_to(other: Container) -> None:
    uids, ports = {"alice": 30000, "bob": 30001}, {"alice": 20000, "bob": 20010}
    assert forwards.wanted_forwards([container()], uids, ports, 10, 0) == [Forward(20000, "alice", "10.0.0.2")]
    assert forwards.wanted_forwards([other], uids, ports, 10, 0) == []
    assert forwards.wanted_forwards([container()], {}, ports, 10, 0) == []
    assert forwards.wanted_forwards([container()], uids, {}, 10, 0) == []


def test_own_forwards_are_wanted_within_the_block_and_their_time_only() -> None:
    own = (
        OwnForward(20003, 8888),
        OwnForward(20010, 80),
        OwnForward(20000, 80),
        OwnForward(20004, 80, until=99, source="10.0.0.0/8"),
    )
    wanted = [
        forward.port
        for forward in forwards.wanted_forwards([container(own)], {"alice": 30000}, {"alice": 20000}, 10, 50)
    ]
    assert wanted == [20000, 20003, 20004]
    wanted = [
        forward.port
        for forward in forwards.wanted_forwards([container(own)], {"alice": 30000}, {"alice": 20000}, 10, 99)
    ]
    assert wanted == [20000, 20003]


@given(
    st.dictionaries(st.sampled_from(["alice", "bob", "carol"]), st.integers(20000, 20012)),
    st.lists(st.tuples(st.integers(20000, 20020), st.integers(1, 3)), max_size=6),
    st.lists(st.tuples(st.integers(20000, 20020), st.integers(1, 3)), max_size=6),
)
def test_no_port_leads_to_two_containers_whatever_the_port_files_say(
    ports: dict[str, int], alices: list[tuple[int, int]], bobs: list[tuple[int, int]]
) -> None:
    uids = {"alice": 30000, "bob": 30001, "carol": 30002}
    own = {"alice": alices, "bob": bobs}
    containers = [
        Container(name=name, state="Running", owner=name, uid=uid, address=f"10.0.0.{uid - 29990}",
                  forwards=tuple(OwnForward(*pair) for pair in own.get(name, [])))
        for name, uid in uids.items()
    ]  # fmt: skip
    found = forwards.wanted_forwards(containers, uids, ports, 10, 0)
    holders = {forward.port: {other.user for other in found if other.port == forward.port} for forward in found}
    assert all(len(users) == 1 for users in holders.values())
    for name, port in ports.items():
        alone = [other for other in ports if other != name and abs(ports[other] - port) < 10] == []
        if alone:
            assert any(forward.user == name and forward.port == port for forward in found)


def test_a_port_that_two_users_files_hold_leads_to_neither() -> None:
    uids, same = {"alice": 30000, "bob": 30001}, {"alice": 20000, "bob": 20000}
    bob = Container(name="bob", state="Running", owner="bob", uid=30001, address="10.0.0.3")
    assert forwards.wanted_forwards([container(), bob], uids, same, 10, 0) == []
    assert forwards.rivals("alice", same, 10) == ["bob"]
    partly = {"alice": 20000, "bob": 20005}
    found = forwards.wanted_forwards([container((OwnForward(20005, 80),)), bob], uids, partly, 10, 0)
    assert [(forward.user, forward.port) for forward in found] == [("alice", 20000)]


def test_a_port_of_the_hosts_own_is_not_handed_out() -> None:
    block = range(20000, 20003)
    one = forwards.add_forward((), block, forwards.Request(8888), 0, busy={20001})
    assert one == (OwnForward(20002, 8888),)
    with pytest.raises(UsageError, match="20001 to 20002"):
        forwards.add_forward(one, block, forwards.Request(80), 0, busy={20001})
    with refused(UsageError, "port-taken"):
        forwards.with_desktop((), block, "20001", 3389, 0, busy={20001})


def test_a_new_forward_takes_the_lowest_free_port_of_the_block() -> None:
    block = range(20000, 20003)
    one = forwards.add_forward((), block, forwards.Request(8888, "jupyter"), 0)
    two = forwards.add_forward(one, block, forwards.Request(6006), 0)
    assert [(own.port, own.target) for own in two] == [(20001, 8888), (20002, 6006)]
    assert forwards.add_forward(two, block, forwards.Request(8888, "lab"), 0)[0] == OwnForward(20001, 8888, "lab")
    with pytest.raises(UsageError, match="20001 to 20002"):
        forwards.add_forward(two, block, forwards.Request(80), 0)
    over = (OwnForward(20001, 8888, until=5),)
    assert forwards.add_forward(over, block, forwards.Request(80), 6) == (OwnForward(20001, 80),)
    assert forwards.remove_forward(two, 8888) == forwards.remove_forward(two, 20001) == two[1:]
    with pytest.raises(UsageError):
        forwards.remove_forward(two, 1)


@pytest.mark.parametrize(
    ("said", "then"),
    [
        (forwards.Request(8888), OwnForward(20001, 8888, "jupyter", "192.0.2.0/24", 900)),
        (forwards.Request(8888, "lab"), OwnForward(20001, 8888, "lab", "192.0.2.0/24", 900)),
        (forwards.Request(8888, source="198.51.100.0/24"), OwnForward(20001, 8888, "jupyter", "198.51.100.0/24", 900)),
        (forwards.Request(8888, source=""), OwnForward(20001, 8888, "jupyter", "", 900)),
        (forwards.Request(8888, until=1200), OwnForward(20001, 8888, "jupyter", "192.0.2.0/24", 1200)),
    ],
)
def test_what_is_not_said_of_a_port_that_is_forwarded_already_stays(said: forwards.Request, then: OwnForward) -> None:
    before = OwnForward(20001, 8888, "jupyter", "192.0.2.0/24", 900)
    assert forwards.add_forward([before], range(20000, 20003), said, 10) == (then,)
    assert forwards.add_forward([before], range(20000, 20003), forwards.Request(8888), 1000) == (OwnForward(20001, 8888),)


@pytest.mark.parametrize(
    "forward",
    [forwards.Request(22), forwards.Request(0), forwards.Request(65536), forwards.Request(80, "a b"), forwards.Request(80, "-x")],
)
def test_an_impossible_forward_is_refused(forward: forwards.Request) -> None:
    with pytest.raises(UsageError):
        forwards.add_forward((), range(20000, 20010), forward, 0)


def test_times_and_networks_are_as_people_type_them() -> None:
    assert [forwards.seconds_of(text) for text in ("30m", "8h", "3d")] == [1800, 28800, 259200]
    assert forwards.checked_source("192.0.2.7") == "192.0.2.7/32"
    assert forwards.checked_source("0.0.0.0/0") == ""
    for text in ("", "0h", "8", "h", "-1h", "9999d", "8 h", "８h"):
        with pytest.raises(UsageError):
            forwards.seconds_of(text)
    for text in ("", "x", "192.0.2.1/24", "::1/128"):
        with pytest.raises(UsageError):
            forwards.checked_source(text)


def test_a_wanted_rule_that_is_live_twice_is_removed_once() -> None:
    one, two = Forward(20000, "alice", "10.0.0.2"), Forward(20010, "bob", "10.0.0.3")
    assert forwards.difference([one, two, one, one], [two, one]) == forwards.Difference((one, one), ())


@QUICK
@given(FORWARDS.map(set), FORWARDS.map(set))
def test_a_difference_touches_nothing_that_is_both_live_and_wanted(live: set[Forward], wanted: set[Forward]) -> None:
    change = forwards.difference(live, wanted)
    assert set(change.remove) == live - wanted
    assert list(change.add) == sorted(wanted - live)


@QUICK
@given(FORWARDS, FORWARDS.map(set))
def test_making_the_difference_makes_live_what_is_wanted(live: list[Forward], wanted: set[Forward]) -> None:
    change = forwards.difference(live, wanted)
    left = list(live)
    for forward in change.remove:
        left.remove(forward)
    assert sorted([*left, *change.add]) == sorted(wanted)
    assert bool(change) == (sorted(live) != sorted(wanted))


@pytest.mark.parametrize(
    "caller",
    [Caller(0, "root", frozenset({"labshell"})), Caller(999, "daemon", frozenset({"labshell"})), Caller(65534, "nobody", frozenset({"labshell"})),
     Caller(100000, "", frozenset({"labshell"})), Caller(30000, "alice", frozenset({"users"}))],
)  # fmt: skip
def test_whoever_is_not_a_researcher_may_not_use_the_gateway(caller: Caller) -> None:
    with pytest.raises(NotAllowed):
        may_use_gateway(caller, "labshell")
    may_use_gateway(Caller(30000, "alice", frozenset({"labshell"})), "labshell")


@pytest.mark.parametrize("uid", [1000, 30000, 65533])
def test_a_researcher_of_the_group_may_use_the_gateway(uid: int) -> None:
    may_use_gateway(Caller(uid, "alice", frozenset({"users", "labshell"})), "labshell")
    with pytest.raises(NotAllowed):
        may_use_gateway(Caller(uid, "alice", frozenset({"labshell-not", "lab"})), "labshell")


def test_the_lowest_uid_may_be_another() -> None:
    group = frozenset({"labshell"})
    may_use_gateway(Caller(30000, "alice", group), "labshell", 30000)
    with pytest.raises(NotAllowed):
        may_use_gateway(Caller(29999, "alice", group), "labshell", 30000)


def test_a_snapshot_has_a_name_that_is_new_and_one_may_keep_so_many() -> None:
    assert name_of_snapshot("before-cuda", ["a"], 2, "now") == "before-cuda"
    assert name_of_snapshot("", [], 1, "20260101-1200") == "20260101-1200"
    for name in ("a/b", "..", "-a", "A", "a" * 33, "a\n", "a b", "１"):
        with refused(UsageError, "snapshot-name-invalid"):
            name_of_snapshot(name, [], 3, "now")
    with refused(UsageError, "snapshot-name-taken"):
        name_of_snapshot("a", ["a", "b"], 2, "now")
    with pytest.raises(UsageError, match="delete one first: a, b"):
        name_of_snapshot("c", ["b", "a"], 2, "now")
    with refused(UsageError, "snapshots-too-many"):
        name_of_snapshot("c", [], 0, "now")


def test_a_key_is_chosen_by_its_number_its_fingerprint_or_its_comment() -> None:
    listed = [PublicKey("ssh-ed25519", "AAAA", "a@b"), PublicKey("ssh-ed25519", "AAAB", "lab  pc of 2")]
    assert choose_key(listed, "a@b") == listed[0]
    assert choose_key(listed, "lab pc of 2") == listed[1]
    assert choose_key(listed, listed[1].fingerprint.removeprefix("SHA256:")) == listed[1]
    with pytest.raises(UsageError, match="There are 2 keys a@b"):
        choose_key([*listed, PublicKey("ssh-rsa", "AAAC", "a@b")], "a@b")
    assert choose_key(listed, "2") == listed[1]
    assert choose_key(listed, listed[0].fingerprint) == listed[0]
    for which in ("0", "3", "-1", "", "01", "１", "SHA256:", listed[0].fingerprint[:-1], "\x1b[2J"):
        with pytest.raises(UsageError) as caught:
            choose_key(listed, which)
        assert str(caught.value).isprintable()


def test_forwards_from_another_block_find_places_in_this_one() -> None:
    own = [OwnForward(20013, 80), OwnForward(30001, 81), OwnForward(30002, 82)]
    found = forwards.within(own, range(20010, 20013))
    assert [(one.port, one.target) for one in found] == [(20011, 80), (20012, 81)]
    found = forwards.within(own, range(20010, 20015))
    assert [(one.port, one.target) for one in found] == [(20011, 81), (20012, 82), (20013, 80)]


def test_a_forward_that_lies_elsewhere_keeps_no_port_from_being_added() -> None:
    found = forwards.add_forward([OwnForward(30001, 80)], range(20010, 20015), forwards.Request(80), 0)
    assert OwnForward(20011, 80) in found


def test_a_disk_is_full_before_its_last_byte_and_beyond_it() -> None:
    assert [is_full(used, 1 << 30) for used in (0, 1 << 29, (1 << 30) - 1, 1 << 31)] == [False, False, True, True]
    assert not is_full(0, 0)
