"""Proxies with nat: what is sent to an address of this host goes to an instance, by rules of the kernel's.

One table of ours, replaced whole in one transaction. It belongs to no network: the address that is led to may be on a
bridge of ours, of somebody else's, or behind a routed nic.
"""

import asyncio
import contextlib
import os
from collections.abc import Callable
from dataclasses import dataclass

from lxpy.networks import firewall

Changing = Callable[[], contextlib.AbstractContextManager[list[int]]]


@dataclass(frozen=True)
class Lead:
    """One device's. `ports` as nftables writes sets; `pairs` of listening and target port where those differ."""

    protocol: str
    listen: str
    ports: str
    target: str
    target_port: int = 0
    pairs: tuple[tuple[int, int], ...] = ()

    def rules(self) -> tuple[str, str]:
        """The rule that leads there, and that for an instance that asks for itself by way of the host."""
        family = "ip6" if ":" in self.listen else "ip"
        bare = f"[{self.target}]" if family == "ip6" else self.target
        to = self.target
        if self.target_port:
            to = f"{bare}:{self.target_port}"
        elif self.pairs:
            members = ", ".join(f"{a} : {b}" for a, b in self.pairs)
            to = f"{self.target} : {self.protocol} dport map {{ {members} }}"
        lead = f"{family} daddr {self.listen} {self.protocol} dport {{ {self.ports} }} dnat {family} to {to}"
        # Without it the answer would go to the asker straight, from an address it has not asked.
        hairpin = f"ct status dnat {family} saddr {self.target} {family} daddr {self.target} masquerade"
        return lead, hairpin


class ProxyNat:
    """The rules of all proxies with nat.

    Args:
        table: of family ``inet``.
        marker: a file that is there while the table is.
        changing: around each change: others that watch the rules are to know that it is ours.
    """

    def __init__(self, table: str, marker: str, changing: Changing) -> None:
        self._table, self._marker, self._changing = table, marker, changing
        self._leads: dict[tuple[int, str], Lead] = {}
        self._lock = asyncio.Lock()
        self._loaded = False

    async def lead(self, instance: int, device: str, to: Lead | None) -> None:
        """What a device leads where from now on; None: nothing. Before `load` it is only noted.

        Raises:
            InternalError: nft is missing or has refused; then it is as it was.
        """
        key = (instance, device)
        if self._leads.get(key) == to:
            return
        before = dict(self._leads)
        self._leads.pop(key, None)
        if to is not None:
            self._leads[key] = to
        if not self._loaded:
            return
        try:
            await self.load()
        except BaseException:
            self._leads = before
            raise

    def clash(self, instance: int, device: str, lead: Lead, ports: set[int]) -> bool:
        """Whether a device of another instance leads one of these ports elsewhere already."""
        return any(
            (one.protocol, one.listen) == (lead.protocol, lead.listen) and _numbers(one.ports) & ports
            for key, one in self._leads.items()
            if key != (instance, device)
        )

    async def load(self) -> None:
        """All rules, as they are to be; nothing is done where there have never been any. Raises `InternalError`."""
        self._loaded = True
        async with self._lock:
            if not self._leads and not os.path.exists(self._marker):
                return
            with open(self._marker, "w", encoding="ascii"):
                pass
            with self._changing() as count:
                await firewall.run(self._script())
                count.append(1)
            if not self._leads:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(self._marker)

    async def reload(self) -> None:
        """Somebody has taken the rules away."""
        if self._loaded:
            await self.load()

    def _script(self) -> str:
        lines = [f"add table inet {self._table}", f"delete table inet {self._table}"]
        if not self._leads:
            return "\n".join(lines) + "\n"
        pairs = [lead.rules() for _, lead in sorted(self._leads.items())]
        lines.append(f"table inet {self._table} {{")
        for name, hook, rules in (
            ("prert", "prerouting priority -101", [lead for lead, _ in pairs]),
            ("out", "output priority -101", [lead for lead, _ in pairs]),
            ("pstrt", "postrouting priority 98", list(dict.fromkeys(hairpin for _, hairpin in pairs))),
        ):
            lines += [f"  chain {name} {{", f"    type nat hook {hook}; policy accept;"]
            lines += [f"    {rule}" for rule in rules] + ["  }"]
        return "\n".join([*lines, "}", ""])


def _numbers(ports: str) -> set[int]:
    spans = [part.strip().partition("-") for part in ports.split(",")]
    return {port for low, _, high in spans for port in range(int(low), int(high or low) + 1)}
