"""How the tree of each kind of recipe is made: busybox, Debian by mmdebstrap, Alpine by apk."""

import glob
import os
import re
import shutil
import stat
from collections.abc import Callable
from typing import NamedTuple

from lxpy.api.errors import InternalError, Unavailable
from lxpy.images import tools, tree
from lxpy.images.architectures import debian_name, native
from lxpy.images.recipes import Recipe, RecipeFile

Say = Callable[[str], None]
_SUPER = {"init", "halt", "poweroff", "reboot", "ip", "ifconfig", "route", "udhcpc", "syslogd", "klogd", "getty",
          "switch_root", "sulogin", "sysctl", "modprobe", "lsmod", "pivot_root", "start-stop-daemon"}  # fmt: skip
_KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
# Only for what a build's scripts stamp into files (the day in /etc/shadow): any fixed day makes them alike.
_FIXED_DAY = "1704067200"


class Built(NamedTuple):
    """A finished tree: `epoch` is the latest time in it (seconds), `properties` what only the build could know."""

    epoch: int
    properties: dict[str, str]


class AptSource(NamedTuple):
    uri: str
    security: bool


def tool_identity(recipe: Recipe) -> str:
    """Which programs would build this recipe here and now: changes when their package is upgraded; no fork."""
    names = {"busybox": ["busybox"], "mmdebstrap": ["mmdebstrap"], "alpine": ["apk.static", "apk"]}[recipe.kind]
    parts = []
    for name in [*names, "mksquashfs"]:
        path = shutil.which(name)
        if path:
            info = os.stat(path)
            parts.append(f"{name}:{info.st_size}:{int(info.st_mtime)}")
    return ",".join(parts)


async def build_tree(recipe: Recipe, root: str, environment: dict[str, str], say: Say) -> Built:
    """Makes the recipe's tree in the empty directory `root`.

    Raises:
        Unavailable: a program is missing, or no mirror is known.
        InternalError: a program failed.
    """
    kinds = {"busybox": _busybox, "mmdebstrap": _debian, "alpine": _alpine}
    built = await kinds[recipe.kind](recipe, root, environment, say)
    tree.apply_files(root, recipe.files)
    return built


def _epoch(default: int) -> int:
    given = os.environ.get("SOURCE_DATE_EPOCH", "")
    return int(given) if given.isdigit() else default


# -- busybox -----------------------------------------------------------------------------------------------------------


async def _busybox(recipe: Recipe, root: str, environment: dict[str, str], say: Say) -> Built:
    doing = f"Building {recipe.name}"
    binary = os.path.realpath(tools.need("busybox", "busybox-static", doing))
    if not _is_static(binary):
        raise Unavailable(f"{doing} needs a static busybox, {binary} is not: install the package busybox-static")
    say("laying out the tree")
    for name in ("bin", "sbin", "usr/bin", "usr/sbin", "usr/share", "etc", "dev", "proc", "sys", "run", "tmp", "root",
                 "mnt", "home", "var/log", "var/lib", "var/tmp", "var/spool"):  # fmt: skip
        os.makedirs(f"{root}/{name}", mode=0o755, exist_ok=True)
    for name in ("tmp", "var/tmp"):
        os.chmod(f"{root}/{name}", 0o1777)
    os.chmod(f"{root}/root", 0o700)
    os.symlink("../run", f"{root}/var/run")
    shutil.copyfile(binary, f"{root}/bin/busybox")
    os.chmod(f"{root}/bin/busybox", 0o755)
    for applet in sorted((await tools.run(doing, [binary, "--list"])).split()):
        if applet != "busybox":
            target = ("sbin", "../bin/busybox") if applet in _SUPER else ("bin", "busybox")
            os.symlink(target[1], f"{root}/{target[0]}/{applet}")
    os.symlink("../../bin/busybox", f"{root}/usr/bin/env")
    banner = re.search(r"BusyBox v([\w.]+)", await tools.run(doing, [binary, "--help"]))
    version = banner[1] if banner else recipe.release
    release = f'ID=busybox\nNAME="BusyBox"\nVERSION_ID={version}\nPRETTY_NAME="BusyBox {version}"\n'
    tree.apply_files(root, (RecipeFile("/etc/os-release", release),))
    return Built(_epoch(int(os.stat(binary).st_mtime)), {"release": version, "version": version})


def _is_static(path: str) -> bool:
    """Whether an ELF file asks for no loader: it has no PT_INTERP segment (ELF specification, program header 3)."""
    with open(path, "rb") as file:
        head = file.read(4096)
    if head[:4] != b"\x7fELF":
        return False
    order = "little" if head[5] == 1 else "big"
    wide = head[4] == 2
    start = int.from_bytes(head[32:40] if wide else head[28:32], order)  # type: ignore[arg-type]
    size, count = (
        int.from_bytes(head[at : at + 2], order)  # type: ignore[arg-type]
        for at in ((54, 56) if wide else (42, 44))
    )
    kinds = (head[start + size * i : start + size * i + 4] for i in range(count))
    return all(int.from_bytes(kind, order) != 3 for kind in kinds)  # type: ignore[arg-type]


# -- Debian ------------------------------------------------------------------------------------------------------------


async def _debian(recipe: Recipe, root: str, environment: dict[str, str], say: Say) -> Built:
    doing = f"Building {recipe.name}"
    program = tools.need("mmdebstrap", "mmdebstrap", doing)
    command = [*tools.WALLS, program, "--mode=root", "--format=directory", "--variant=minbase"]
    command += [f"--architectures={debian_name(native()[0])}", f"--include={','.join(recipe.packages)}"]
    command += ["--dpkgopt=force-unsafe-io"]
    for option in await _apt_options(doing):
        command += [f"--aptopt={option}"]
    for verb, units in (("enable", recipe.services), ("disable", recipe.disable)):
        for unit in units:
            # A unit to disable may well not be there.
            ignore = " 2>/dev/null || true" if verb == "disable" else ""
            command += [f'--customize-hook=chroot "$1" systemctl {verb} {unit}{ignore}']
    sources = [source for source in host_sources() if source.uri]
    command += [recipe.release, root, *_lines(recipe.release, sources)]

    def line(text: str) -> None:
        if text.startswith("I: ") and "-hook" not in text:
            say(text[3:].rstrip(". "))

    await tools.run(doing, command, environment | {"SOURCE_DATE_EPOCH": _FIXED_DAY}, line)
    guest = default_sources(program) or sources
    if not guest:
        raise InternalError(f"{doing}: no mirror to write into the guest's sources could be found out")
    epoch = _epoch(newest(f"{root}/usr/share/doc"))
    tree.apply_files(root, (*_clean_apt(recipe.release, guest), *_up_to_date(epoch)))
    return Built(epoch, {})


def _up_to_date(epoch: int) -> tuple[RecipeFile, ...]:
    """Tells systemd that ``/etc`` and ``/var`` fit ``/usr``: the packages' scripts have just seen to that.

    Else the first boot makes users, catalogues and caches once more (ConditionNeedsUpdate=, systemd.unit(5)).
    """
    stamp = f"# Made by the image's build.\nTIMESTAMP_NSEC={epoch * 10**9}\n"
    return RecipeFile("/etc/.updated", stamp), RecipeFile("/var/.updated", stamp)


def _clean_apt(suite: str, sources: list[AptSource]) -> tuple[RecipeFile, ...]:
    """The guest's own apt: the distribution's default mirrors, nothing of this host's proxies and caches."""
    stanzas = []
    for source in sources:
        suites = f"{suite}-security" if source.security else f"{suite} {suite}-updates"
        stanzas.append(f"Types: deb\nURIs: {source.uri}\nSuites: {suites}\nComponents: main\nSigned-By: {_KEYRING}\n")
    gone = ("/etc/apt/sources.list", "/etc/apt/sources.list.d", "/etc/apt/apt.conf.d/99mmdebstrap",
            "/etc/apt/auth.conf", "/etc/dpkg/dpkg.cfg.d/99mmdebstrap", "/etc/hostname",
            "/var/cache/debconf/templates.dat-old",
            "/var/cache/debconf/config.dat-old", "/var/log/alternatives.log", "/var/log/bootstrap.log",
            "/var/log/dpkg.log", "/var/log/apt/history.log", "/var/log/apt/term.log",
            "/var/cache/ldconfig/aux-cache")  # fmt: skip
    return (
        *(RecipeFile(path, remove=True) for path in gone),
        RecipeFile("/etc/apt/sources.list.d/debian.sources", "\n".join(stanzas)),
    )


def _lines(suite: str, sources: list[AptSource]) -> list[str]:
    signed = f"[signed-by={_KEYRING}] " if os.path.exists(_KEYRING) else ""
    lines = []
    for source in sources:
        for name in [f"{suite}-security"] if source.security else [suite, f"{suite}-updates"]:
            lines.append(f"deb {signed}{source.uri} {name} main")
    return lines


def host_sources(etc: str = "/etc") -> list[AptSource]:
    """The Debian mirrors this host itself uses, in both of apt's formats; none on another distribution."""
    try:
        with open(f"{etc}/os-release", encoding="utf-8") as file:
            if not re.search(r'^ID="?debian"?$', file.read(), re.MULTILINE):
                return []
    except OSError:
        return []
    found: list[AptSource] = []
    for path in [f"{etc}/apt/sources.list", *sorted(glob.glob(f"{etc}/apt/sources.list.d/*"))]:
        try:
            with open(path, encoding="utf-8") as file:
                text = file.read()
        except (OSError, UnicodeDecodeError):
            continue
        entries = _deb822(text) if path.endswith(".sources") else _one_line(text) if path.endswith(".list") else []
        for uri, suites, components in entries:
            if "main" not in components or not uri.startswith(("http://", "https://", "file:/", "copy:/")):
                continue
            security = all(suite.endswith(("-security", "/updates")) for suite in suites)
            # Backports and proposed updates come from the same place; a debug archive does not have the base.
            plain = any("-" not in suite and "/" not in suite for suite in suites)
            if (security or plain) and "debug" not in uri and _is_debian(uri):
                found.append(AptSource(uri.rstrip("/"), security))
    # One of each will do, and only together: security updates alone make no system.
    base = next((source for source in found if not source.security), None)
    security_source = next((source for source in found if source.security), None)
    return [source for source in (base, security_source) if source] if base else []


def default_sources(program: str) -> list[AptSource]:
    """The public mirrors mmdebstrap falls back on, out of its own text: they belong to the distribution, not to us."""
    try:
        with open(program, encoding="utf-8", errors="replace") as file:
            text = file.read()
    except OSError:
        return []
    base = re.search(r"""\$mirror\s*=\s*['"](https?://[^'"\s]+/debian)/?['"]""", text)
    security = re.search(r"""\$secmirror\s*=\s*['"](https?://[^'"\s]+/debian-security)/?['"]""", text)
    if not base:
        return []
    return [AptSource(base[1], False), *([AptSource(security[1], True)] if security else [])]


def _is_debian(uri: str) -> bool:
    return "debian" in uri.split("//", 1)[-1] and "ubuntu" not in uri


def _one_line(text: str) -> list[tuple[str, list[str], list[str]]]:
    found = []
    for match in re.finditer(r"^\s*deb\s+(?:\[[^\]]*\]\s+)?(\S+)\s+(\S+)\s+([^#\n]+)", text, re.MULTILINE):
        found.append((match[1], [match[2]], match[3].split()))
    return found


def _deb822(text: str) -> list[tuple[str, list[str], list[str]]]:
    found = []
    for stanza in re.split(r"\n\s*\n", text):
        fields: dict[str, str] = {}
        key = ""
        for line in stanza.splitlines():
            if line.startswith("#"):
                continue
            if line[:1] in (" ", "\t"):
                fields[key] = f"{fields.get(key, '')} {line.strip()}"
            elif ":" in line:
                key, value = line.split(":", 1)
                key = key.strip().lower()
                fields[key] = value.strip()
        if "deb" not in fields.get("types", "").split() or fields.get("enabled", "yes").lower() == "no":
            continue
        for uri in fields.get("uris", "").split():
            found.append((uri, fields.get("suites", "").split(), fields.get("components", "").split()))
    return found


async def _apt_options(doing: str) -> list[str]:
    """How this host reaches mirrors: its apt proxies, and whether it accepts old lists (a snapshot mirror's)."""
    if not shutil.which("apt-config"):
        return []
    wanted = re.compile(r'Acquire::(?:https?::Proxy(?:::\S+)?|Check-Valid-Until|Check-Date) ".*";')
    return [text for text in (await tools.run(doing, ["apt-config", "dump"])).splitlines() if wanted.match(text)]


def newest(directory: str) -> int:
    """The latest time of any plain file below, seconds: of ``/usr/share/doc`` it is that of the newest package."""
    latest = 0
    for path, _, names in os.walk(directory):
        for name in names:
            info = os.lstat(f"{path}/{name}")
            if stat.S_ISREG(info.st_mode):
                latest = max(latest, int(info.st_mtime))
    return latest or int(_FIXED_DAY)


# -- Alpine ------------------------------------------------------------------------------------------------------------


async def _alpine(recipe: Recipe, root: str, environment: dict[str, str], say: Say) -> Built:
    doing = f"Building {recipe.name} (untested: {recipe.untested})" if recipe.untested else f"Building {recipe.name}"
    mirror = os.environ.get("LXPY_ALPINE_MIRROR", "") or recipe.mirror
    if not mirror:
        raise Unavailable(
            f"{doing} needs a mirror: set LXPY_ALPINE_MIRROR in the daemon's environment to an address with "
            f"v{recipe.release}/main/ below it"
        )
    apk = shutil.which("apk.static") or tools.need("apk", "apk-tools (or Alpine's apk.static)", doing)
    keys = next((path for path in ("/etc/apk/keys", "/usr/share/apk/keys") if os.path.isdir(path)), None)
    if keys is None:
        raise Unavailable(f"{doing} needs Alpine's public keys in /etc/apk/keys: packages are not taken on trust")
    repositories = [f"{mirror.rstrip('/')}/v{recipe.release}/{part}" for part in ("main", "community")]
    say("installing packages")
    command = [*tools.WALLS, apk, "--root", root, "--initdb", "--no-cache", "--keys-dir", keys]
    for repository in repositories:
        command += ["--repository", repository]
    await tools.run(doing, [*command, "add", *recipe.packages], environment, lambda text: say(text[:60]))
    os.makedirs(f"{root}/etc/runlevels/default", exist_ok=True)
    for service in recipe.services:
        link = f"{root}/etc/runlevels/default/{service}"
        if not os.path.lexists(link):
            os.symlink(f"/etc/init.d/{service}", link)
    tree.apply_files(root, (RecipeFile("/etc/apk/repositories", "\n".join(repositories) + "\n"),))
    return Built(_epoch(newest(f"{root}/lib/apk")), {})
