"""info: one instance in words, or the server."""

from __future__ import annotations

import sys

from lxpy.api import status
from lxpy.cli import limits, render
from lxpy.cli.args import Args, Command, Option, UsageError
from lxpy.cli.context import Context

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def _info(context: Context, args: Args) -> None:
    client, name = context.resolve(args.at(0) or ":")
    if not name:
        if args.flag("resources"):
            sys.stdout.write(render.yaml(client.get("/1.0/resources")))
            return
        server = client.get("/1.0")
        sys.stdout.write(render.yaml(server))
        return
    from lxpy.client.wire import quote

    url = f"/1.0/instances/{quote(name)}"
    if args.flag("isolation"):
        found = client.get(f"{url}/isolation")
        fmt = args.value("format")
        if fmt not in ("", "json", "yaml"):
            raise UsageError(f"unknown format {fmt!r}: json or yaml")
        if fmt:
            sys.stdout.write(render.show(fmt, [], [], found))
            return
        from lxpy.client import isolation

        sys.stdout.write("\n".join(isolation.lines(name, found)) + "\n")
        return
    if args.flag("format"):
        raise UsageError("--format is for --isolation")
    instance = client.get(url, recursion="1")
    state = client.get(f"{url}/state")
    sys.stdout.write("\n".join(describe(instance, state)) + "\n")
    if args.flag("show-log"):
        log = client.request("GET", f"{url}/console").body
        sys.stdout.write("\nLog:\n\n" + log.decode(errors="replace") + "\n")


def _devices(instance: dict[str, Any]) -> list[str]:
    """What it has besides its root and nics; of those that come and go, what is there now."""
    import json

    out = []
    for name, device in sorted((instance.get("expanded_devices") or instance["devices"]).items()):
        kind = device.get("type", "")
        if kind in ("nic", "none") or device.get("path") == "/":
            continue
        text = ""
        if kind == "proxy":
            way = "out of it, " if device.get("bind", "host") != "host" else ""
            text = f"{way}{device['listen']} -> {device['connect']}{' (nat)' if device.get('nat') == 'true' else ''}"
        elif kind == "disk":
            source = device.get("source", "")
            text = f"{device['pool'] + '/' if device.get('pool') else ''}{source} at {device.get('path', '')}"
        elif instance["status_code"] in status.UP:
            noted = json.loads(instance["config"].get(f"volatile.{name}.nodes", "{}"))
            text = ", ".join(node["path"] for node in noted.get("nodes", ())) or "not there"
        else:
            text = device.get("path") or device.get("source", "")
        out.append(f"  {name}: {kind} {text}".rstrip())
    return ["", "Devices:", *out] if out else []


def describe(instance: dict[str, Any], state: dict[str, Any]) -> list[str]:
    """The lines of ``info NAME``."""
    kind = instance["type"] + (" (ephemeral)" if instance["ephemeral"] else "")
    out = [f"Name: {instance['name']}", f"Status: {instance['status'].upper()}", f"Type: {kind}"]
    out.append(f"Architecture: {instance['architecture']}")
    if state.get("pid"):
        out.append(f"PID: {state['pid']}")
    if created := render.date(instance["created_at"]):
        out.append(f"Created: {created}")
    if used := render.date(instance["last_used_at"]):
        out.append(f"Last Used: {used}")
    if instance["description"]:
        out.append(f"Description: {instance['description']}")
    if instance["profiles"]:
        out.append(f"Profiles: {', '.join(instance['profiles'])}")
    # How it last ended, whoever ended it: shut down, rebooted, killed, out of memory.
    if reason := instance["config"].get("volatile.last_state.reason"):
        out.append(f"Last stop: {reason} ({render.date(instance['config'].get('volatile.last_state.at', ''))})")
    out += _restarts(instance)
    out += _devices(instance)
    use = _resources(state) + limits.lines(instance, state) if state.get("pid") else []
    return out + use + _snapshots(instance)


def _resources(state: dict[str, Any]) -> list[str]:
    out = ["", "Resources:", f"  Processes: {state['processes']}"]
    disks = [(name, one["usage"]) for name, one in (state.get("disk") or {}).items() if one.get("usage")]
    if disks:
        out += ["  Disk usage:", *(f"    {name}: {render.size(used)}" for name, used in disks)]
    out += ["  CPU usage:", f"    CPU usage (in seconds): {state['cpu']['usage'] // 1_000_000_000}"]
    memory = state["memory"]
    out += ["  Memory usage:", f"    Memory (current): {render.size(memory['usage'])}"]
    if memory["usage_peak"]:
        out.append(f"    Memory (peak): {render.size(memory['usage_peak'])}")
    if memory.get("oom_kills"):
        out.append(f"    Processes killed for want of memory (OOM): {memory['oom_kills']}")
    if memory["swap_usage"]:
        out.append(f"    Swap (current): {render.size(memory['swap_usage'])}")
    if state.get("network"):
        out.append("  Network usage:")
        for name, one in state["network"].items():
            counters = one["counters"]
            out += [f"    {name}:", f"      Type: {one['type']}", f"      State: {one['state'].upper()}"]
            if one["host_name"]:
                out.append(f"      Host interface: {one['host_name']}")
            if one["hwaddr"]:
                out.append(f"      MAC address: {one['hwaddr']}")
            out += [
                f"      MTU: {one['mtu']}",
                f"      Bytes received: {render.size(counters.get('bytes_received', 0))}",
                f"      Bytes sent: {render.size(counters.get('bytes_sent', 0))}",
                f"      Packets received: {counters.get('packets_received', 0)}",
                f"      Packets sent: {counters.get('packets_sent', 0)}",
                "      IP addresses:",
            ]
            out += [f"        {a['family']}:  {a['address']}/{a['netmask']} ({a['scope']})" for a in one["addresses"]]
    return out


def _restarts(instance: dict[str, Any]) -> list[str]:
    """How often it was started again after it had ended by itself."""
    count = instance["config"].get("volatile.autorestart.count")
    if not count:
        return []
    if due := instance["config"].get("volatile.autorestart.due"):
        return [f"Restarts: {int(count) - 1} in a row, the next one at {render.date(due)}"]
    given_up = "" if instance["status_code"] in status.UP else ", given up"
    return [f"Restarts: {count} in a row after it ended by itself{given_up}"]


def _snapshots(instance: dict[str, Any]) -> list[str]:
    if snapshots := instance.get("snapshots"):
        rows = [[s["name"].rpartition("/")[2], render.date(s["created_at"]), render.date(s.get("expires_at", "")),
                 "YES" if s.get("stateful") else "NO"] for s in snapshots]  # fmt: skip
        return ["", "Snapshots:", render.table(["NAME", "TAKEN AT", "EXPIRES AT", "STATEFUL"], rows).rstrip()]
    return []


COMMANDS = {
    "info": Command(
        _info, "[<remote>:][<instance>]", "Show instance or server information",
        (
            Option("--isolation", help="Show what keeps a running instance apart from the host"),
            Option("-f --format", "FORMAT", "Print --isolation as json or yaml"),
            Option("--show-log", help="Show the instance's recent console log"),
            Option("--resources", help="Show the resources available to the server"),
            Option("--target", "MEMBER", "Cluster member name"),
        ), 0, 1,
    )
}  # fmt: skip
