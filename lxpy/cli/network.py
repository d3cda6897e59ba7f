"""network."""

from __future__ import annotations

import sys

from lxpy.cli import render
from lxpy.cli.args import Args, Command, Option
from lxpy.cli.context import Context, pairs
from lxpy.cli.objects import FORMAT, Kind

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

NETWORK = Kind("network", "/1.0/networks")


def _create(context: Context, args: Args) -> None:
    client, name = context.resolve(args.rest[0])
    body = {
        "name": name,
        "type": args.value("type"),
        "config": pairs(args.rest[1:]),
        "description": args.value("description"),
    }
    context.wait(client, client.post(NETWORK.path, body))
    context.say(f"Network {name} created")


def _info(context: Context, args: Args) -> None:
    client, url = NETWORK.resolve(context, args.rest[0])
    state: dict[str, Any] = client.get(f"{url}/state")
    out = [
        f"Name: {args.rest[0].rpartition(':')[2]}",
        f"MAC address: {state.get('hwaddr', '')}",
        f"MTU: {state.get('mtu', '')}",
        f"State: {state.get('state', '')}",
        f"Type: {state.get('type', '')}",
    ]
    if state.get("addresses"):
        out += ["", "IP addresses:"]
        out += [f"  {one['family']}\t{one['address']}/{one['netmask']} ({one['scope']})" for one in state["addresses"]]
    counters = state.get("counters") or {}
    out += ["", "Network usage:"]
    out += [f"  Bytes received: {render.size(counters.get('bytes_received', 0))}"]
    out += [f"  Bytes sent: {render.size(counters.get('bytes_sent', 0))}"]
    out += [f"  Packets received: {counters.get('packets_received', 0)}"]
    out += [f"  Packets sent: {counters.get('packets_sent', 0)}"]
    sys.stdout.write("\n".join(out) + "\n")


def _leases(context: Context, args: Args) -> None:
    client, url = NETWORK.resolve(context, args.rest[0])
    found = client.get(f"{url}/leases")
    rows = sorted([one["hostname"], one["hwaddr"], one["address"], one["type"].upper()] for one in found)
    header = ["HOSTNAME", "MAC ADDRESS", "IP ADDRESS", "TYPE"]
    sys.stdout.write(render.show(args.value("format"), header, rows, found))


def _row(one: dict[str, Any]) -> list[str]:
    config = one.get("config") or {}
    return [
        one["name"],
        one["type"],
        "YES" if one["managed"] else "NO",
        config.get("ipv4.address", ""),
        config.get("ipv6.address", ""),
        one.get("description", ""),
        str(len(one.get("used_by") or ())),
        str(one.get("status", "")).upper(),
    ]


COMMANDS = {
    "network": {
        "create": Command(
            _create, "[<remote>:]<network> [key=value...]", "Create a network",
            (Option("-t --type", "TYPE", "Network type", "bridge"), Option("--description", "TEXT", "Description")),
            1, None,
        ),
        "delete": NETWORK.delete(),
        "edit": NETWORK.edit(),
        "get": NETWORK.get(),
        "info": Command(_info, NETWORK.place, "Get runtime information on a network", (), 1, 1),
        "list": NETWORK.list(
            ["NAME", "TYPE", "MANAGED", "IPV4", "IPV6", "DESCRIPTION", "USED BY", "STATE"], _row,
        ),
        "list-leases": Command(_leases, NETWORK.place, "List DHCP leases", (FORMAT,), 1, 1),
        "rename": NETWORK.rename(),
        "set": NETWORK.set(),
        "show": NETWORK.show(),
        "unset": NETWORK.unset(),
    }
}  # fmt: skip
