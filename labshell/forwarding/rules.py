"""Our rules in the words of the iptables tool: what they should be, and the change from one state to another.

Text in, text out: iptables-save writes the live state, iptables-restore takes the change, one commit per table. Pure.

Few forwards are one rule each in LABSHELL. Many are in a chain for each RANGE ports, with one jump to it from
LABSHELL: the kernel walks through a chain rule by rule, for the first packet of every connection.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from labshell.model.forwards import Forward

PORTS = "LABSHELL"
HAIRPIN = "LABSHELL-HAIRPIN"
ACCEPT = "LABSHELL-FORWARD"
NOTE = "-m comment --comment labshell"
DNATED = "-m conntrack --ctstate DNAT"
FEW = 500  # forwards that are still one chain
RANGE = 128  # ports of one chain when they are more
OUR_CHAIN = re.compile(rf"{PORTS}(-[A-Z0-9]+)?")
RANGE_CHAIN = re.compile(rf"{PORTS}-[0-9]+")
OUR_JUMP = re.compile(rf"-j {OUR_CHAIN.pattern}")
FORWARD = re.compile(
    r"(?:-s (?P<source>[0-9./]+) )?-p tcp -m tcp --dport (?P<port>[0-9]+) "
    r'-m comment --comment "labshell:(?P<user>[a-z0-9-]+)" '
    r"-j DNAT --to-destination (?P<address>[0-9.]+):(?P<target>[0-9]+)"
)
COMMENT = re.compile(r'--comment "?labshell:([^" ]+)')
DNAT = re.compile(r"-j DNAT --to-destination (\S+)")
PORT_LIST = re.compile(r"--dports? ([0-9:,]+)")

Chains = Mapping[str, Sequence[str]]  # name -> its rules, each as iptables-save has it without "-A NAME "
Tables = Mapping[str, Chains]


@dataclass(frozen=True)
class Saved:
    """What iptables-save said. Every chain of a table is in it; a table that was never used is not."""

    tables: Mapping[str, Mapping[str, list[str]]]
    policies: Mapping[tuple[str, str], str]  # (table, built-in chain) -> "ACCEPT" or "DROP"

    def chains(self, table: str) -> Mapping[str, list[str]]:
        return self.tables.get(table, {})


def parse(text: str) -> Saved:
    """The output of iptables-save, without counters."""
    tables: dict[str, dict[str, list[str]]] = {}
    policies: dict[tuple[str, str], str] = {}
    table = ""
    for line in text.splitlines():
        if line.startswith("-A "):
            chain, _, rule = line[3:].partition(" ")
            tables[table][chain].append(rule)
        elif line.startswith(":"):
            chain, policy = line[1:].split(" ")[:2]
            tables[table][chain] = []
            policies[table, chain] = policy
        elif line.startswith("*"):
            table = line[1:]
            tables[table] = {}
    return Saved(tables, policies)


def around(bridge: str, network: str, outside_interface: str) -> Tables:
    """Everything of ours but the forwards; of built-in chains our jumps.

    Destination-local on the jump is what keeps a rule for port 80 from capturing every container's outgoing
    web traffic. Only what came from the bridge or from loopback is masqueraded on its way to a container:
    its sshd must see the real address of every other client.
    """
    local = f"-m addrtype --dst-type LOCAL {NOTE} -j {PORTS}"
    return {
        "nat": {
            "PREROUTING": [f"-i {outside_interface} {local}" if outside_interface else local],
            "OUTPUT": [local],
            "POSTROUTING": [f"-o {bridge} {NOTE} -j {HAIRPIN}"],
            HAIRPIN: [f"-s {source} {DNATED} -j MASQUERADE" for source in (network, "127.0.0.0/8")],
        },
        "filter": {
            "FORWARD": [f"{NOTE} -j {ACCEPT}"],
            ACCEPT: [f"{way} {bridge} {DNATED} -j ACCEPT" for way in ("-o", "-i")],
        },
    }


def forwarding(wanted: Collection[Forward]) -> Chains:
    """The chains of all forwards."""
    return _placed({PORTS: []}, wanted, by_range=len(wanted) > FEW)


def with_user(live: Saved, user: str, wanted: Iterable[Forward]) -> Chains:
    """The live chains of forwards with those of one user being `wanted`."""
    kept = {
        name: [rule for rule in rules if not _is_of(user, rule)]
        for name, rules in live.chains("nat").items()
        if _is_of_forwards(name)
    }
    return _placed({PORTS: [], **kept}, wanted, by_range=any(map(RANGE_CHAIN.fullmatch, kept)))


def _placed(chains: dict[str, list[str]], forwards: Iterable[Forward], *, by_range: bool) -> Chains:
    top = dict.fromkeys(chains[PORTS])  # in order, each once
    for forward in forwards:
        if by_range:
            start = forward.port // RANGE * RANGE
            name = f"{PORTS}-{start}"
            chains.setdefault(name, []).append(rule_of(forward))
            top[f"-p tcp -m tcp --dport {start}:{start + RANGE - 1} -j {name}"] = None
        else:
            top[rule_of(forward)] = None
    return {**chains, PORTS: list(top)}


def rule_of(forward: Forward) -> str:
    source = f"-s {forward.source} " if forward.source else ""
    return (
        f'{source}-p tcp -m tcp --dport {forward.port} -m comment --comment "{forward.comment}" '
        f"-j DNAT --to-destination {forward.address}:{forward.target}"
    )


def user_of(rule: str) -> str:
    """Whose rule it says it is; empty if it does not say."""
    found = COMMENT.search(rule)
    return found.group(1) if found else ""


def _is_of(user: str, rule: str) -> bool:
    return f"labshell:{user}" in rule and user_of(rule) == user


def live_forwards(live: Saved, user: str | None = None) -> list[Forward]:
    """The rules of our chains as values, of one user or all; one that is not in our form as one never wanted."""
    every = (rule for name, rules in live.chains("nat").items() if _is_of_forwards(name) for rule in rules)
    if user is None:
        return [_as_forward(rule) for rule in every if not OUR_JUMP.search(rule)]
    return [_as_forward(rule) for rule in every if _is_of(user, rule)]


def _as_forward(rule: str) -> Forward:
    found = FORWARD.fullmatch(rule)
    if found is None:
        return Forward(0, user_of(rule), rule, 0)
    port, target, source = int(found["port"]), int(found["target"]), found["source"] or ""
    return Forward(port, found["user"], found["address"], target, source)


def _is_of_forwards(chain: str) -> bool:
    return chain == PORTS or RANGE_CHAIN.fullmatch(chain) is not None


def change(live: Saved, wanted: Tables) -> str:
    """The input of iptables-restore --noflush that makes our rules equal to `wanted`; empty if they are.

    Chains of ours that are not in `wanted` go. Of a built-in chain only our jumps are looked at.
    """
    tables = sorted({*live.tables, *wanted})
    parts = [(table, list(_changes(live.chains(table), wanted.get(table, {})))) for table in tables]
    return "".join("\n".join([f"*{table}", *lines, "COMMIT", ""]) for table, lines in parts if lines)


def _changes(live: Chains, wanted: Chains) -> Iterator[str]:
    gone = [name for name in live if OUR_CHAIN.fullmatch(name) and name not in wanted]
    for name in wanted:
        if name not in live and OUR_CHAIN.fullmatch(name):
            yield f"-N {name}"  # fails if somebody was quicker: declaring it would empty it
    for name in {**live, **wanted}:
        now, then = live.get(name, ()), wanted.get(name, ())
        if OUR_CHAIN.fullmatch(name):
            yield from _in_our_chain(name, now, then) if name in wanted else ()
        else:
            yield from _in_builtin_chain(name, [rule for rule in now if OUR_JUMP.search(rule)], list(then))
    for order in ("-F", "-X"):
        for name in gone:
            yield f"{order} {name}"


def _in_our_chain(name: str, now: Sequence[str], then: Sequence[str]) -> Iterator[str]:
    if now != then:
        for rule in (Counter(now) - Counter(then)).elements():
            yield f"-D {name} {rule}"
        for rule in (Counter(then) - Counter(now)).elements():
            yield f"-A {name} {rule}"


def _in_builtin_chain(name: str, now: list[str], then: list[str]) -> Iterator[str]:
    """Our jumps come first: a firewall's own last rule may take everything."""
    if now != then:
        for rule in now:
            yield f"-D {name} {rule}"
        for rule in reversed(then):
            yield f"-I {name} {rule}"


def is_forward_dropping(live: Saved) -> bool:
    """Whether FORWARD drops by default, without a jump to our rules."""
    has_jump = any(rule.endswith(f"-j {ACCEPT}") for rule in live.chains("filter").get("FORWARD", ()))
    return live.policies.get(("filter", "FORWARD")) == "DROP" and not has_jump


def redirections_of_others(live: Saved) -> list[tuple[str, set[int]]]:
    """Where DNAT rules that are not ours lead ("10.0.0.2:22"), with the ports that they take."""
    others = (rules for name, rules in live.chains("nat").items() if not OUR_CHAIN.fullmatch(name))
    found = []
    for rule in (rule for rules in others for rule in rules):
        destination, ports = DNAT.search(rule), PORT_LIST.search(rule)
        if destination and ports:
            found.append((destination.group(1), numbers(ports.group(1))))
    return found


def numbers(ports: str) -> set[int]:
    """ "80", "80,443", "8000:8010" as numbers."""
    pairs = (part.partition(":") for part in ports.split(","))
    return {port for first, _, last in pairs for port in range(int(first), int(last or first) + 1)}


def packets(text: str, user: str) -> int:
    """How many packets the rules of one user have taken, from the output of iptables-save with counters."""
    marked = (line for line in text.splitlines() if _is_of(user, line))
    return sum(int(line[1 : line.index(":")]) for line in marked if line.startswith("["))
