"""labshell's speed as ratios: each figure is one thing against another, measured in turn in the same run.

Absolute times say nothing on a machine that others use; a median of paired ratios says how much slower than what.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from lab import Lab, running_lab
from rich.console import Console
from rich.table import Table

PAIRS = 20
LONG = {"starts-50"}  # measured only if it is named, or with --thorough
QUICK = {"warm-login", "old-shell", "cold-login", "port-1", "port-proxy-1", "connections", "proxy"}
Pair = tuple[float, float]


@dataclass(frozen=True)
class Row:
    """One line of the table. `measure` yields pairs: ours and the other's, as `goal` compares them."""

    name: str
    what: str
    against: str
    goal: str  # "<= 1.15" or ">= 0.95"
    measure: Callable[[Lab, int], Iterator[Pair]]
    pairs: int = PAIRS  # fewer where one takes so long that a whole run would take over ten minutes

    def is_wanted(self, names: list[str], *, quick: bool, thorough: bool) -> bool:
        if names:
            return self.name in names
        return self.name in QUICK if quick else thorough or self.name not in LONG

    def number_of_pairs(self, *, quick: bool, thorough: bool) -> int:
        if quick:
            return max(3, self.pairs // 3)
        return max(PAIRS, self.pairs) if thorough else self.pairs


@dataclass(frozen=True)
class Figure:
    """The median of the ratios with its quartiles."""

    name: str
    what: str
    against: str
    goal: str
    median: float
    quartiles: tuple[float, float]
    pairs: tuple[Pair, ...]  # as measured, for whoever looks for the reason

    @property
    def is_reached(self) -> bool:
        word, number = self.goal.split()
        return self.median <= float(number) if word == "<=" else self.median >= float(number)


def seconds(action: Callable[[], object]) -> float:
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


def warm_login(lab: Lab, pairs: int) -> Iterator[Pair]:
    for _ in range(pairs):
        other = seconds(lambda: lab.ssh("truth", "x"))
        yield seconds(lambda: lab.ssh("alice", "status")), other


def old_shell(lab: Lab, pairs: int) -> Iterator[Pair]:
    for _ in range(pairs):
        other = seconds(lambda: lab.ssh("old", "x"))
        yield seconds(lambda: lab.ssh("alice", "status")), other


def cold_login(lab: Lab, pairs: int) -> Iterator[Pair]:
    """What ssh itself takes to log in, without a container, is left out: it is no cost of either start."""
    address, port = lab.address("bob"), lab.port("bob")
    for _ in range(pairs):
        lab.stop("bob")
        other = seconds(lambda: (lab.engine_start("bob"), lab.banner(address, 22)))
        lab.stop("bob")
        with lab.login("bob", "start"):
            ours = seconds(lambda: lab.banner(lab.host.client.gateway, port))
        yield ours - seconds(lambda: lab.ssh("truth", "x")), other


def add_user(lab: Lab, pairs: int) -> Iterator[Pair]:
    for number in range(pairs):
        other = seconds(lambda number=number: lab.engine_add(f"engine{number}"))
        lab.delete(f"engine{number}")
        ours = seconds(lambda number=number: lab.host.add_user(f"new{number}"))
        lab.host.remove_user(f"new{number}")
        yield ours, other


def throughput(streams: int, other: Callable[[Lab], Pair | tuple[str, int]]) -> Callable[[Lab, int], Iterator[Pair]]:
    """Bytes a second into a container through its forwarded port, and on another way."""

    def measure(lab: Lab, pairs: int) -> Iterator[Pair]:
        address, port = other(lab)
        with lab.sink():
            for _ in range(pairs):
                theirs = lab.send(str(address), int(port), streams)
                yield lab.send(lab.host.client.gateway, lab.sink_port, streams), theirs

    return measure


def connections(lab: Lab, pairs: int) -> Iterator[Pair]:
    with lab.sink():
        for _ in range(pairs):
            other = lab.connect_often(lab.address("alice"), lab.SINK)
            yield lab.connect_often(lab.host.client.gateway, lab.sink_port), other


def without_limits(lab: Lab, pairs: int) -> Iterator[Pair]:
    with lab.sink():
        for _ in range(pairs):
            lab.host.run(["nft", "delete", "table", "inet", "labshell-limits"])
            other = lab.connect_often(lab.host.client.gateway, lab.sink_port)
            lab.host.admin("reconcile")
            yield lab.connect_often(lab.host.client.gateway, lab.sink_port), other


def proxy(lab: Lab, pairs: int) -> Iterator[Pair]:
    """Bytes a second over ssh, with what ssh itself takes to begin left out."""
    for _ in range(pairs):
        other = lab.ssh_throughput(through_gateway=False)
        yield lab.ssh_throughput(through_gateway=True), other


def many_logins(lab: Lab, pairs: int) -> Iterator[Pair]:
    for _ in range(pairs):
        other = seconds(lambda: lab.logins_at_once("truth", "x", 100))
        yield seconds(lambda: lab.logins_at_once("alice", "status", 100)), other


def many_starts(count: int) -> Callable[[Lab, int], Iterator[Pair]]:
    """So many containers at once; both ways with four starts at a time, the product's default."""

    def measure(lab: Lab, pairs: int) -> Iterator[Pair]:
        names = lab.crowd(count)
        for _ in range(pairs):
            lab.stop_all(names)
            other = seconds(lambda: lab.engine_start_all(names, at_once=4))
            lab.stop_all(names)
            yield seconds(lambda: lab.login_all(names)), other

    return measure


# Ten thousand people against ten ------------------------------------------------------------------------


def crowded(action: Callable[[Lab], object]) -> Callable[[Lab, int], Iterator[Pair]]:
    """How long something takes on a host with a crowd, and on one with ten people more than there were."""

    def measure(lab: Lab, pairs: int) -> Iterator[Pair]:
        large = lab.crowded()
        for _ in range(pairs):
            few = seconds(lambda: action(lab))
            yield seconds(lambda: action(large)), few

    return measure


def allocation(lab: Lab, pairs: int) -> Iterator[Pair]:
    large = lab.crowded()
    for _ in range(pairs):
        few = lab.allocation()
        yield large.allocation(), few


def first_packet(lab: Lab, pairs: int) -> Iterator[Pair]:
    """Seconds for a connection and its end, which is its first packet and few more."""
    large = lab.crowded()
    with lab.sink(), large.sink():
        for _ in range(pairs):
            few = 1 / lab.connect_often(lab.host.client.gateway, lab.sink_port)
            yield 1 / large.connect_often(large.host.client.gateway, large.sink_port), few


def add_and_remove_forward(lab: Lab) -> None:
    lab.ssh("alice", "ports add 8080")
    lab.ssh("alice", "ports remove 8080")


def reconcile_seconds(lab: Lab, pairs: int) -> Iterator[Pair]:
    """Against one second, so it is seconds."""
    large = lab.crowded()
    for _ in range(pairs):
        yield seconds(lambda: large.host.admin("reconcile")), 1.0


def memory(lab: Lab, pairs: int) -> Iterator[Pair]:
    for _ in range(pairs):
        yield lab.crowded().daemon_memory(), 1.0


def idle(lab: Lab, _pairs: int) -> Iterator[Pair]:
    large = lab.crowded()
    time.sleep(2)
    share = large.daemon_share(20)
    for _ in range(3):
        yield share, 1.0


def direct(lab: Lab) -> tuple[str, int]:
    return lab.address("alice"), lab.SINK


def proxy_device(lab: Lab) -> tuple[str, int]:
    return lab.host.client.gateway, lab.userspace_proxy()


ROWS = (
    Row("warm-login", "ssh HOST status", "/bin/true as login shell", "<= 1.15", warm_login, 25),
    Row("old-shell", "ssh HOST status", "a login shell in bash, with sudo lxc and iptables", "<= 0.85", old_shell),
    Row("cold-login", "stopped to banner by a login, without ssh's own time", "the engine's start, and the banner", "<= 1.10", cold_login),
    Row("add-user", "add-user", "the engine's copy, start and banner", "<= 1.5", add_user),
    Row("port-1", "throughput of the port", "of the container's address", ">= 0.95", throughput(1, direct)),
    Row("port-8", "the same, eight streams", "of the container's address", ">= 0.95", throughput(8, direct)),
    Row("port-proxy-1", "throughput of the port", "of a proxy device without nat", ">= 1.5", throughput(1, proxy_device)),
    Row("port-proxy-8", "the same, eight streams", "of a proxy device without nat", ">= 1.5", throughput(8, proxy_device)),
    Row("connections", "new connections a second", "directly", ">= 0.9", connections),
    Row("limits", "new connections a second through a port", "without the limits on connections", ">= 0.9", without_limits),
    Row("proxy", "throughput of proxy", "of the port, both by ssh", ">= 0.5", proxy),
    Row("logins", "100 logins at once", "with /bin/true", "<= 1.3", many_logins, 3),
    Row("crowd-login", "ssh HOST status, 10,000 people", "10 people", "<= 1.2", crowded(lambda lab: lab.ssh("alice", "status"))),
    Row("crowd-start", "ssh HOST start (looks at the rules)", "10 people", "<= 1.2", crowded(lambda lab: lab.ssh("alice", "start"))),
    Row("crowd-allocation", "giving a port, 10,000 people", "10 people", "<= 1.2", allocation),
    Row("crowd-forward", "ports add and remove, 10,000 people", "10 people", "<= 1000", crowded(add_and_remove_forward)),
    Row("crowd-list", "list, 10,000 people", "10 people", "<= 1000", crowded(lambda lab: lab.host.admin("list")), 5),
    Row("crowd-reconcile", "reconcile, 10,000 people", "10 people", "<= 1000", crowded(lambda lab: lab.host.admin("reconcile"))),
    Row("crowd-reconcile-s", "reconcile, 10,000 people", "a second", "<= 2", reconcile_seconds),
    Row("crowd-packet", "new connection, 10,000 rules", "10 rules", "<= 1.5", first_packet),
    Row("crowd-memory", "daemon's memory, 10,000 people", "a megabyte", "<= 100", memory, 3),
    Row("crowd-idle", "daemon's idle share, 10,000 people", "a percent", "<= 0.1", idle, 3),
    Row("starts-50", "50 containers started by logins", "by the engine, as many at once", "<= 1.2", many_starts(50), 3),
)  # fmt: skip


def measured(row: Row, lab: Lab, pairs: int) -> Figure:
    found = tuple(row.measure(lab, pairs))
    ratios = [ours / other for ours, other in found]
    first, _, third = statistics.quantiles(ratios, n=4)
    return Figure(row.name, row.what, row.against, row.goal, statistics.median(ratios), (first, third), found)


def show(figures: list[Figure]) -> None:
    table = Table(show_edge=False)
    for column in ("what", "compared with", "goal", "median", "quartiles", "pairs", ""):
        table.add_column(column)
    for figure in figures:
        spread = f"{figure.quartiles[0]:.2f} {figure.quartiles[1]:.2f}"
        word = "reached" if figure.is_reached else "missed"
        table.add_row(
            figure.what, figure.against, figure.goal, f"{figure.median:.2f}", spread, str(len(figure.pairs)), word
        )
    Console(highlight=False, width=118).print(table)


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"only these: {', '.join(row.name for row in ROWS)}")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--quick", action="store_true", help=f"a third of the pairs, and {len(QUICK)} rows")
    how.add_argument(
        "--thorough", action="store_true", help=f"every row, with {PAIRS} pairs also where one takes long"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there, too")
    options = parser.parse_args()
    depth = {"quick": options.quick, "thorough": options.thorough}
    figures: list[Figure] = []
    with running_lab() as lab:
        for row in ROWS:
            if row.is_wanted(options.names, **depth):
                began = time.monotonic()
                pairs = row.number_of_pairs(**depth)
                figures.append(measured(row, lab, pairs))
                print(f"{row.name}: {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    show(figures)
    if options.json:
        options.json.write_text(json.dumps([asdict(figure) for figure in figures], indent=1) + "\n")


if __name__ == "__main__":
    main()
