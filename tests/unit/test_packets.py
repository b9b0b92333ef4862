"""What others' rules do with a packet, and which ports they take away: iptables-save's text and nft's JSON."""

from __future__ import annotations

import json
from typing import Any

import pytest

from labshell.forwarding import nft_rules, packets, rules
from labshell.forwarding.packets import ACCEPT, DROP, Packet

DHCP = Packet("lxdbr0", "udp", 67)
UFW = """*filter
:INPUT DROP [0:0]
:ufw-before-input - [0:0]
:ufw-user-input - [0:0]
-A INPUT -j ufw-before-input
-A ufw-before-input -i lo -j ACCEPT
-A ufw-before-input -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A ufw-before-input -p udp -m udp --sport 67 --dport 68 -j ACCEPT
-A ufw-before-input -j ufw-user-input
-A ufw-user-input -p tcp -m tcp --dport 22 -j ACCEPT
COMMIT
"""


def filtering(*lines: str, policy: str = "ACCEPT") -> str:
    return "\n".join(["*filter", f":INPUT {policy} [0:0]", *lines, "COMMIT"])


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("", ACCEPT),
        (filtering(), ACCEPT),
        (filtering(policy="DROP"), DROP),
        (UFW, DROP),
        (UFW.replace("COMMIT", "-A ufw-user-input -i lxdbr0 -j ACCEPT\nCOMMIT"), ACCEPT),
        (filtering("-A INPUT -i lxdbr0 -p udp -m udp --dport 67 -j ACCEPT", policy="DROP"), ACCEPT),
        (filtering("-A INPUT -i lxd+ -p udp -m multiport --dports 53,60:70 -j ACCEPT", policy="DROP"), ACCEPT),
        (filtering("-A INPUT -p udp -m udp --dport 53 -j ACCEPT", policy="DROP"), DROP),
        (filtering("-A INPUT ! -i eth0 -j ACCEPT", policy="DROP"), ACCEPT),
        (filtering("-A INPUT ! -i lxdbr0 -j DROP"), ACCEPT),
        (filtering("-A INPUT -j REJECT --reject-with icmp-port-unreachable"), DROP),
        (filtering('-A INPUT -i lxdbr0 -m comment --comment "a b" -j ACCEPT', "-A INPUT -j DROP"), ACCEPT),
        (filtering("-A INPUT -s 10.0.0.0/8 -j DROP"), ACCEPT),
        (filtering("-A INPUT -j LOG --log-prefix x", "-A INPUT -j DROP"), DROP),
        (filtering(":other - [0:0]", "-A INPUT -j other", "-A INPUT -j DROP", "-A other -j RETURN"), DROP),
        (filtering(":other - [0:0]", "-A INPUT -g other", "-A INPUT -j ACCEPT", policy="DROP"), DROP),
        (filtering(":a - [0:0]", "-A INPUT -j a", "-A a -j a", policy="DROP"), DROP),
    ],
)
def test_what_becomes_of_a_packet(text: str, verdict: str) -> None:
    assert packets.verdict(rules.parse(text), "INPUT", DHCP) == verdict


@pytest.mark.parametrize(
    ("rule", "taken"),
    [
        ("-A PREROUTING -p tcp -m tcp --dport 20010 -j DNAT --to-destination 10.1.1.1:80", [20010]),
        (
            "-A PREROUTING -i eth0 -p tcp -m multiport --dports 80,20000:20100 -j REDIRECT --to-ports 9",
            [20000, 20010],
        ),
        ("-A PREROUTING -j DNAT --to-destination 10.1.1.1", [20000, 20010]),
        ("-A OUTPUT -p tcp -m tcp --dport 20010 -j REDIRECT --to-ports 9", [20010]),
        ("-A PREROUTING -p udp -m udp --dport 20010 -j DNAT --to-destination 10.1.1.1:80", []),
        ("-A PREROUTING -d 203.0.113.9/32 -j DNAT --to-destination 10.1.1.1", []),
        ("-A PREROUTING -p tcp -m tcp --dport 80 -j DNAT --to-destination 10.1.1.1:80", []),
        ("-A LABSHELL -p tcp -m tcp --dport 20010 -j DNAT --to-destination 10.83.0.2:22", []),
        ("-A POSTROUTING -p tcp -m tcp --dport 20010 -j MASQUERADE", []),
    ],
)
def test_rules_of_others_that_take_a_port_are_found_with_their_removal(rule: str, taken: list[int]) -> None:
    chain = rule.split()[1]
    text = f"*nat\n:PREROUTING ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n:POSTROUTING ACCEPT [0:0]\n:LABSHELL - [0:0]\n{rule}\n"
    found = list(packets.redirections(rules.parse(text), [20000, 20010]))
    assert [list(one.ports) for one in found] == ([taken] if taken else [])
    assert [one.removal for one in found] == ([rule.replace(f"-A {chain}", f"-t nat -D {chain}")] if taken else [])


def ruleset(policy: str, *expressions: list[dict[str, Any]], hook: str = "input", table: str = "t") -> str:
    place = {"family": "inet", "table": table}
    items: list[dict[str, Any]] = [{"chain": {**place, "name": "c", "hook": hook, "policy": policy, "handle": 1}}]
    items += [{"rule": {**place, "chain": "c", "handle": n, "expr": e}} for n, e in enumerate(expressions, start=5)]
    return json.dumps({"nftables": [{"metainfo": {}}, *items]})


def match(left: dict[str, Any], right: object, op: str = "==") -> dict[str, Any]:
    return {"match": {"op": op, "left": left, "right": right}}


BRIDGE = match({"meta": {"key": "iifname"}}, "lxdbr0")
DPORT = {"payload": {"protocol": "udp", "field": "dport"}}
TCP_DPORT = {"payload": {"protocol": "tcp", "field": "dport"}}
YES, NO = {"accept": None}, {"drop": None}


@pytest.mark.parametrize(
    ("text", "drops"),
    [
        ("", False),
        (ruleset("accept"), False),
        (ruleset("drop"), True),
        (ruleset("drop", table="labshell"), False),
        (ruleset("drop", hook="forward"), False),
        (ruleset("drop", [BRIDGE, YES]), False),
        (ruleset("drop", [BRIDGE, match(DPORT, {"set": [53, 67]}), {"counter": None}, YES]), False),
        (ruleset("drop", [match(DPORT, {"range": [60, 70]}), YES]), False),
        (ruleset("drop", [match(DPORT, 53), YES]), True),
        (ruleset("drop", [match({"meta": {"key": "iifname"}}, "lxdbr0", "!="), YES]), True),
        (ruleset("drop", [match({"ct": {"key": "state"}}, ["established"], "in"), YES]), True),
        (ruleset("accept", [NO]), True),
        (ruleset("accept", [{"counter": None}]), False),
        (ruleset("accept", [{"reject": None}]), True),
        (ruleset("drop", [{"jump": {"target": "c"}}]), True),
    ],
)
def test_what_becomes_of_a_packet_in_nftables(text: str, *, drops: bool) -> None:
    assert bool(nft_rules.dropping(nft_rules.chains(text), DHCP)) == drops


def test_a_rule_of_nftables_that_takes_a_port_is_found_with_its_removal() -> None:
    text = ruleset("accept", [match(TCP_DPORT, 80), {"redirect": {}}], [match(TCP_DPORT, 20010), {"dnat": {}}])
    [found] = nft_rules.redirections(nft_rules.chains(text), [20000, 20010])
    assert (found.ports, found.removal) == ([20010], "nft delete rule inet t c handle 6")
    assert not list(
        nft_rules.redirections(nft_rules.chains(ruleset("accept", [match(DPORT, 20010), {"dnat": {}}])), [20010])
    )
