"""The accept rules in the other variant of iptables, where Docker or ufw have set its FORWARD policy to DROP.

A packet has to pass both variants, so what ours accepts would be dropped there.
"""

from __future__ import annotations

import json
from typing import Any

from labshell.forwarding import nft

CHAIN = "LABSHELL-FORWARD"


class NftVariant:
    """FORWARD of iptables-nft, for one bridge."""

    def __init__(self, bridge: str) -> None:
        self._bridge = bridge

    def is_forward_dropping(self) -> bool:
        """Whether it drops by default, without our rules."""
        if self._forward_policy() != "drop":
            return False
        return nft.run(["iptables-nft", "-w", "-C", "FORWARD", "-j", CHAIN], may_fail=True) is None

    def ensure(self) -> bool:
        """Accept DNATed traffic and the containers' own if the policy is DROP; True if that was not so."""
        if not self.is_forward_dropping():
            return False
        restore = f"""*filter
:{CHAIN} - [0:0]
-A {CHAIN} -o {self._bridge} -m conntrack --ctstate DNAT -j ACCEPT
-A {CHAIN} -i {self._bridge} -j ACCEPT
-A {CHAIN} -o {self._bridge} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -j {CHAIN}
COMMIT
"""
        nft.run(["iptables-nft-restore", "--noflush", "-w"], restore)
        return True

    def remove(self) -> None:
        """Take the accept rules away."""
        if self._forward_policy() is not None:
            nft.run(["iptables-nft", "-w", "-D", "FORWARD", "-j", CHAIN], may_fail=True)
            nft.run(["iptables-nft", "-w", "-F", CHAIN], may_fail=True)
            nft.run(["iptables-nft", "-w", "-X", CHAIN], may_fail=True)

    def _forward_policy(self) -> str | None:
        """The policy of FORWARD; None if there is no such chain."""
        listing = nft.run(["nft", "-j", "list", "chain", "ip", "filter", "FORWARD"], may_fail=True)
        if not listing:
            return None
        chains: list[dict[str, Any]] = [item["chain"] for item in json.loads(listing)["nftables"] if "chain" in item]
        return str(chains[0].get("policy", "accept")) if chains else None
