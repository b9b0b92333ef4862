"""Decisions: tables and properties."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labshell import forwards, policy
from labshell.errors import LabshellError, NotAllowed, UsageError
from labshell.forwards import Forward
from labshell.policy import Caller, Container, OwnForward, PortPool

POOL = PortPool(20000, 20099, 10)
FORWARDS = st.lists(
    st.builds(Forward, st.integers(1, 50), st.sampled_from("ab"), st.sampled_from(["10.0.0.2", "10.0.0.3"]))
)


@pytest.mark.parametrize("name", ["ab", "alice", "a1", "x" * 32, "li-wei2"])
def test_an_ordinary_name_is_taken(name: str) -> None:
    assert policy.checked_name(name) == name


@pytest.mark.parametrize(
    "name",
    ["", "a", "a/b", "..", "a b", "Alice", "x" * 33, "root", "nobody", "template", "1a", "-a", "a-", "a--b", "a\n", "ü1", "a１",
     "a_b", "a.b", "a;id", "a$(id)", None, 7, b"ab"],
)  # fmt: skip
def test_any_other_name_is_refused_in_one_line(name: object) -> None:
    with pytest.raises(UsageError) as caught:
        policy.checked_name(name)
    assert "\n" not in str(caught.value)


@given(st.integers(0, 70000), st.sets(st.integers(19980, 20110), max_size=40), st.sets(st.integers(19990, 20110)))
def test_a_chosen_block_lies_in_the_pool_and_touches_nothing(start: int, blocks: set[int], busy: set[int]) -> None:
    taken = busy | {port for first in blocks for port in POOL.block(first)}
    port = policy.choose_block(POOL, start, blocks, busy)
    if port is None:
        assert all(taken & set(POOL.block(first)) for first in range(20000, 20100, 10))
    else:
        assert POOL.fits(port)
        assert not taken & set(POOL.block(port))


def test_the_search_starts_at_next_port_and_wraps_once() -> None:
    assert policy.choose_block(POOL, 20000, [], []) == 20000
    assert policy.choose_block(POOL, 20001, [], []) == 20010
    assert policy.choose_block(POOL, 20091, [], []) == 20000
    assert policy.choose_block(POOL, 20090, [20090], []) == 20000
    assert policy.choose_block(POOL, 65000, [], []) == 20000


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
    assert reason in (policy.conflict_with_block(POOL, port, {20010: "bob"}, {20055}) or "")


def test_a_free_port_asked_for_is_given_even_between_the_usual_blocks() -> None:
    assert policy.conflict_with_block(POOL, 20033, {20010: "bob"}, {20055}) is None


@pytest.mark.parametrize("content", [b"20010\n", b"22\n", b"65535\n"])
def test_a_port_file_is_a_number_and_a_newline(content: bytes) -> None:
    assert policy.parse_port_file(content) == int(content)


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
    assert policy.parse_port_file(content) is None


def test_the_lowest_free_address_is_chosen() -> None:
    assert policy.choose_address("10.83.0.1/24", []) == "10.83.0.2"
    assert policy.choose_address("10.83.0.1/24", ["10.83.0.2", "10.83.0.4"]) == "10.83.0.3"
    with pytest.raises(LabshellError):
        policy.choose_address("10.83.0.1/30", ["10.83.0.2"])


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


def test_a_new_forward_takes_the_lowest_free_port_of_the_block() -> None:
    block = range(20000, 20003)
    one = forwards.add_forward((), block, OwnForward(0, 8888, "jupyter"), 0)
    two = forwards.add_forward(one, block, OwnForward(0, 6006), 0)
    assert [(own.port, own.target) for own in two] == [(20001, 8888), (20002, 6006)]
    assert forwards.add_forward(two, block, OwnForward(0, 8888, "lab"), 0)[0] == OwnForward(20001, 8888, "lab")
    with pytest.raises(UsageError, match="20001 to 20002"):
        forwards.add_forward(two, block, OwnForward(0, 80), 0)
    over = (OwnForward(20001, 8888, until=5),)
    assert forwards.add_forward(over, block, OwnForward(0, 80), 6) == (OwnForward(20001, 80),)
    assert forwards.remove_forward(two, 8888) == forwards.remove_forward(two, 20001) == two[1:]
    with pytest.raises(UsageError):
        forwards.remove_forward(two, 1)


@pytest.mark.parametrize(
    "forward",
    [OwnForward(0, 22), OwnForward(0, 0), OwnForward(0, 65536), OwnForward(0, 80, "a b"), OwnForward(0, 80, "-x")],
)
def test_an_impossible_forward_is_refused(forward: OwnForward) -> None:
    with pytest.raises(UsageError):
        forwards.add_forward((), range(20000, 20010), forward, 0)


def test_times_and_networks_are_as_people_type_them() -> None:
    assert [forwards.seconds_of(text) for text in ("30m", "8h", "3d")] == [1800, 28800, 259200]
    assert forwards.checked_source("192.0.2.7") == "192.0.2.7/32"
    for text in ("", "0h", "8", "h", "-1h", "9999d", "8 h", "８h"):
        with pytest.raises(UsageError):
            forwards.seconds_of(text)
    for text in ("", "x", "192.0.2.1/24", "::1/128"):
        with pytest.raises(UsageError):
            forwards.checked_source(text)


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
        policy.may_use_gateway(caller, "labshell")
    policy.may_use_gateway(Caller(30000, "alice", frozenset({"labshell"})), "labshell")


def test_limits_given_win_over_the_configured_ones() -> None:
    defaults = {"cpu": "4", "memory": "", "disk": "10GiB", "processes": "4096"}
    assert policy.engine_limits(defaults, {"cpu": "0-3", "memory": "1GiB"}) == {
        "limits.cpu": "0-3", "limits.memory": "1GiB", "limits.processes": "4096", "disk": "10GiB",
    }  # fmt: skip
    assert "disk" not in policy.engine_limits(defaults, {"disk": ""})


@pytest.mark.parametrize(
    "given",
    [{"cpu": "all"}, {"memory": "64"}, {"disk": "-1GiB"}, {"processes": "0"}, {"gpu": "1"}, {"memory": "1GiB\n"}],
)
def test_an_impossible_limit_is_refused(given: dict[str, str]) -> None:
    with pytest.raises(UsageError):
        policy.engine_limits({}, given)


def test_a_command_is_one_argument_for_the_shell_inside() -> None:
    program = policy.checked_program("echo 'a b'; id", as_root=False, terminal=None)
    assert policy.command_inside("alice", program) == ["su", "--login", "alice", "--command", "echo 'a b'; id"]
    program = policy.checked_program("", as_root=True, terminal=("../../x", 0, 99999))
    assert program.terminal == ("vt100", 5, 500)
    assert policy.command_inside("alice", program) == ["su", "--login", "root"]
    with pytest.raises(UsageError):
        policy.checked_program("a\0b", as_root=False, terminal=None)
