"""What shuts an instance in, in words: for ``info --isolation`` and the app."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_MEANS = {
    "user": "its users are not the host's users",
    "mnt": "it mounts and unmounts for itself",
    "pid": "it sees and signals its own processes only",
    "net": "interfaces, addresses, firewall of its own",
    "ipc": "shared memory and message queues of its own",
    "uts": "a host name of its own",
    "cgroup": "its own cgroup looks like the root to it",
    "time": "the clock since boot",
}
# What is worth a word among the capabilities that are gone.
_GONE = {
    "sys_module": "load kernel modules", "sys_rawio": "reach the hardware's ports", "sys_time": "set the clock",
    "mac_admin": "change security modules", "mac_override": "pass by security modules",
}  # fmt: skip
_FEW = 15


def lines(name: str, found: dict[str, Any], whole: bool = False, width: int = 96) -> list[str]:
    """What shuts `name` in; with `whole` nothing is left out of long lists, which are folded at `width`."""
    privileged = next((one["host"] for one in found["namespaces"] if one["name"] == "user"), False)
    out = [f"Isolation of {name}", ""]
    if privileged:
        out += ["PRIVILEGED: root inside is root of the host; only what follows below holds it.", ""]
    out += _namespaces(found["namespaces"])
    out += ["", "Users:"]
    if privileged:
        out.append("  as on the host: there is no id map")
    else:
        for kind in ("uid", "gid"):
            for inside, outside, count in found["idmap"][kind]:
                out.append(f"  {kind}s {_span(inside, count)} inside are {_span(outside, count)} outside")
    out += ["", *_capabilities(found["capabilities"], privileged, width), "", *_filters(found, width)]
    out += ["", "Devices it may open (whoever makes the file):", *_wrapped(found["devices"], width)]
    out += ["", *_cgroups(found["cgroups"]), "", *_processes(found["processes"], whole)]
    out += ["", *_mounts(found["mounts"], whole)]
    return out


def _span(first: int, count: int) -> str:
    return str(first) if count == 1 else f"{first}-{first + count - 1}"


def _wrapped(words: list[str], width: int) -> list[str]:
    out = ["  "]
    for word in words:
        if len(out[-1]) + len(word) + 2 > width:
            out.append("  ")
        out[-1] += word + ", "
    out[-1] = out[-1].removesuffix(", ")
    return [line.rstrip() for line in out] if words else ["  none"]


def _namespaces(found: list[dict[str, Any]]) -> list[str]:
    out = ["Namespaces:"]
    for one in found:
        if one["host"]:
            words = "THE HOST'S" if one["name"] != "time" else "the host's, as every container's"
        else:
            words = f"its own: {_MEANS[one['name']]}"
        out.append(f"  {one['name']:<7} {one['inode']}  {words}")
    return out


def _capabilities(found: dict[str, list[str]], privileged: bool, width: int) -> list[str]:
    scope = "over the whole host" if privileged else "over what belongs to its own namespaces"
    out = [f"Capabilities of root inside ({scope}):", *_wrapped(found["effective"], width)]
    if found["effective"] != found["bounding"]:
        out += ["  and its programs may get:", *_wrapped(found["bounding"], width)]
    out.append("Capabilities nobody inside can have:")
    return out + [f"  {one}: {_GONE[one]}" if one in _GONE else f"  {one}" for one in found["missing"]]


def _filters(found: dict[str, Any], width: int) -> list[str]:
    seccomp = found["seccomp"]
    if seccomp["mode"] == "filter":
        refused = _wrapped(seccomp["refused"], width)
        out = [f"System calls: filtered by seccomp ({seccomp['filters']}), refused:", *refused]
    else:
        out = [f"System calls: NOT FILTERED (seccomp mode {seccomp['mode']})"]
    setuid = "setuid programs gain nothing" if found["no_new_privs"] else "setuid programs work as on any system"
    out.append(f"No new privileges: {'yes' if found['no_new_privs'] else 'no'} ({setuid})")
    profile = found["apparmor"] or "none (lxpy doctor says why)"
    return [*out, f"AppArmor profile: {profile}"]


def _cgroups(found: list[dict[str, Any]]) -> list[str]:
    out = ["Cgroups:"]
    for one in found:
        what = ", ".join(one["controllers"]) or "no controller: it is frozen and killed by it"
        out.append(f"  {one['path']} (v{one['version']}: {what})")
        for file, value in one["limits"].items():
            out += [f"    {file} = {line}" for line in value.splitlines()]
    return out


def _processes(found: list[dict[str, Any]], whole: bool) -> list[str]:
    out = [f"Processes ({len(found)}):", "  HOST PID  INSIDE  HOST UID    INSIDE  NAME"]
    shown = found if whole else found[:_FEW]
    for one in shown:
        uid = one["uid_inside"] if one["uid_inside"] >= 0 else "-"
        out.append(f"  {one['pid']:<8}  {one['inside']:<6}  {one['uid']:<10}  {uid!s:<6}  {one['name']}")
    return out if len(shown) == len(found) else [*out, f"  and {len(found) - len(shown)} more (-f yaml shows all)"]


def _mounts(found: list[dict[str, Any]], whole: bool) -> list[str]:
    out = [f"Mounts ({len(found)}); what is missing of nosuid, nodev, noexec and ro it may do there:"]
    width = min(40, max((len(one["target"]) for one in found), default=0))
    for one in found if whole else found[: 2 * _FEW]:
        held = [flag for flag in one["flags"] if flag in ("ro", "nosuid", "nodev", "noexec", "idmapped")]
        out.append(f"  {one['target']:<{width}}  {one['type']:<9}  {' '.join(held) or '-'}")
    hidden = 0 if whole else max(0, len(found) - 2 * _FEW)
    return [*out, f"  and {hidden} more (-f yaml shows all)"] if hidden else out
