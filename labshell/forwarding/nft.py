"""The nftables of this host, by nft itself."""

from __future__ import annotations

import json

from labshell.errors import LabshellError
from labshell.forwarding import guard_rules
from labshell.host import host_program


def load(text: str) -> None:
    """Make the tables what `text` says, all or none of them."""
    run(["nft", "-f", "-"], text)


def ruleset() -> str:
    """Every rule of nftables, as JSON; empty where nft cannot tell."""
    return run(["nft", "--json", "list", "ruleset"], may_fail=True) or ""


def live_chains(text: str) -> set[tuple[str, str]]:
    """Family and name of each chain with rules in it that is there now, of the tables that `text` replaces."""
    found = set()
    for family, table in guard_rules.tables_in(text):
        listing = run(["nft", "-j", "-t", "list", "table", family, table], may_fail=True)
        if listing:
            rules_there = (item["rule"] for item in json.loads(listing)["nftables"] if "rule" in item)
            found |= {(family, rule["chain"]) for rule in rules_there}
    return found


def run(argv: list[str], text: str = "", *, may_fail: bool = False) -> str | None:
    """What a firewall program printed; None if it failed and may."""
    done = host_program.run(argv, text)
    if done.returncode == 0:
        return done.stdout
    if may_fail:
        return None
    raise LabshellError(
        "host-rules-refused",
        "{program} refused the host's own rules: {reason}.",
        program=argv[0],
        reason=host_program.reason_of(done),
    )
