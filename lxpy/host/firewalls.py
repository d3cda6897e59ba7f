"""What the firewalls of this host do with the traffic of our bridges: read, and in one case mended, without the daemon.

Docker, ufw and others drop what they do not know, in chains beside ours; an accept of ours cannot overrule that. nft
shows all rules but those of the older iptables, which are asked for by their own program, and only where there are any.
"""

import re
import subprocess
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from lxpy.host import probes

_LEGACY = (("ip", "iptables-legacy", "/proc/net/ip_tables_names"),
           ("ip6", "ip6tables-legacy", "/proc/net/ip6_tables_names"))  # fmt: skip


class Wall(NamedTuple):
    """A chain that drops what none of its rules lets pass.

    Attributes:
        name: as its own program calls it: ``ip filter FORWARD``, ``iptables-legacy FORWARD``.
        hook: ``forward`` or ``input``.
        family: ``ip``, ``ip6`` or ``inet``.
        owner: ``docker``, ``ufw`` or empty, by the chains it leads to.
        legacy: the program, where it is one of the older iptables.
        rules: the text of all chains that it leads to.
    """

    name: str
    hook: str
    family: str
    owner: str
    legacy: str
    rules: str

    def knows(self, bridge: str) -> bool:
        """Whether any rule names the bridge."""
        return re.search(rf'(?<![\w.-])"?{re.escape(bridge)}"?(?![\w.-])', self.rules) is not None


class Ruleset(NamedTuple):
    """Attributes:
    tables: nftables' tables, name to text.
    walls: the chains that drop, those of the older iptables among them.
    """

    tables: dict[str, str]
    walls: list[Wall]


def read() -> Ruleset:
    """All there is now; some 10 ms. Needs root. Nothing where there is no nft."""
    program = probes.which("nft")
    rules = _output([program, "list", "ruleset"]) if program else ""
    tables = {match[1]: match[2] for match in re.finditer(r"^table (\S+ \S+) \{\n(.*?)^\}", rules, re.M | re.S)}
    walls = [wall for name, body in tables.items() for wall in _nft_walls(name, body)]
    for family, command, names in _LEGACY:
        try:
            with open(names, encoding="ascii") as file:
                used = "filter" in file.read().split()
        except OSError:
            continue
        if used and (path := probes.which(command)):
            walls += _legacy_walls(family, command, _output([path, "-S"]))
    return Ruleset(tables, walls)


def _nft_walls(table: str, body: str) -> Iterator[Wall]:
    chains = {match[1]: match[2] for match in re.finditer(r"^\tchain (\S+) \{\n(.*?)^\t\}", body, re.M | re.S)}
    for chain, text in chains.items():
        head = re.search(r"hook (forward|input) priority [^;]*; policy drop;", text)
        if head and not table.startswith("bridge "):
            rules = "".join(_reached(chain, chains, r"\b(?:jump|goto) (\S+)"))
            family = table.split()[0]
            yield Wall(f"{table} {chain}", head[1], family, _owner(rules), "", rules)


def _legacy_walls(family: str, command: str, listing: str) -> Iterator[Wall]:
    chains: dict[str, str] = {}
    for line in listing.splitlines():
        kind, chain = line.split()[:2]
        chains[chain] = chains.get(chain, "") + (f"{line}\n" if kind == "-A" else "")
    for chain, hook in (("FORWARD", "forward"), ("INPUT", "input")):
        if f"-P {chain} DROP\n" in f"{listing}\n":
            rules = "".join(_reached(chain, chains, r"-[jg] (\S+)"))
            yield Wall(f"{command} {chain}", hook, family, _owner(rules), command, rules)


def _reached(first: str, chains: dict[str, str], jump: str) -> Iterator[str]:
    """The texts of the chains that a chain leads to, itself first."""
    waiting, seen = [first], set[str]()
    while waiting:
        chain = waiting.pop()
        if chain in chains and chain not in seen:
            seen.add(chain)
            yield chains[chain]
            waiting += re.findall(jump, chains[chain])


def _owner(rules: str) -> str:
    return "docker" if "DOCKER-USER" in rules else "ufw" if "ufw-" in rules else ""


def shut_out(walls: Iterable[Wall], hook: str, bridges: Iterable[str]) -> list[tuple[Wall, list[str]]]:
    """The chains of a hook that name a bridge nowhere, each with those bridges."""
    found = [(wall, [one for one in bridges if not wall.knows(one)]) for wall in walls if wall.hook == hook]
    return [(wall, missing) for wall, missing in found if missing]


def remedy(wall: Wall, bridge: str) -> str:
    """What to type so that a chain lets a bridge's traffic pass."""
    program = wall.legacy or ("ip6tables" if wall.family == "ip6" else "iptables")
    if wall.owner == "ufw":
        return f"ufw allow in on {bridge}" + (
            f"; ufw route allow in on {bridge}; ufw route allow out on {bridge}" if wall.hook == "forward" else ""
        )
    if wall.owner == "docker" and wall.hook == "forward":
        return f"{program} -I DOCKER-USER -i {bridge} -j ACCEPT; {program} -I DOCKER-USER -o {bridge} -j ACCEPT"
    if wall.family == "inet" or (" filter" not in f" {wall.name}" and not wall.legacy):
        direction = f'iifname "{bridge}" accept'
        return f"nft 'insert rule {wall.name} {direction}'" + (
            f"; nft 'insert rule {wall.name} oifname \"{bridge}\" accept'" if wall.hook == "forward" else ""
        )
    chain = wall.name.split()[-1]
    return f"{program} -I {chain} -i {bridge} -j ACCEPT" + (
        f"; {program} -I {chain} -o {bridge} -j ACCEPT" if wall.hook == "forward" else ""
    )


def open_docker(table: str, bridges: Iterable[str]) -> list[str]:
    """Lets the bridges through Docker's FORWARD chain, by the chain it keeps for its neighbours. Needs root.

    What lxpyd itself does while it runs, with the same comments: it takes these rules for its own.

    Args:
        table: our nftables table, of the comments.

    Returns:
        One line for each bridge and chain: what was done, or why not.
    """
    said = []
    for wall, missing in shut_out(read().walls, "forward", list(bridges)):
        if wall.owner != "docker":
            continue
        for bridge in missing:
            comment = f"lxpy:{table}:{bridge}"
            if wall.legacy:
                commands = [[wall.legacy, "-w", "-I", "DOCKER-USER", side, bridge, "-j", "ACCEPT", "-m", "comment",
                             "--comment", comment] for side in ("-i", "-o")]  # fmt: skip
            else:
                place = " ".join(wall.name.split()[:2])
                rules = [f'insert rule {place} DOCKER-USER {side} "{bridge}" counter accept comment "{comment}"'
                         for side in ("iifname", "oifname")]  # fmt: skip
                commands = [["nft", "; ".join(rules)]]
            faults = [fault for command in commands if (fault := _fault(command))]
            done = f"not opened: {faults[0]}" if faults else "lets it pass now, until Docker or the host restarts"
            said.append(f"{bridge}: {wall.name} {done}")
    return said


def _output(command: list[str]) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, errors="replace", check=False).stdout
    except OSError:
        return ""


def _fault(command: list[str]) -> str:
    done = subprocess.run(
        [probes.which(command[0]) or command[0], *command[1:]],
        capture_output=True, text=True, errors="replace", check=False,
    )  # fmt: skip
    return "" if done.returncode == 0 else (done.stderr.strip().splitlines() or ["it gave no reason"])[0]
