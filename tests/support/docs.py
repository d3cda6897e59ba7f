"""The examples of the documentation, and a machine of their own to run them on.

Every fenced block marked ``sh`` of a page is run as it stands, by bash, top to bottom; a block that begins with
``# not run: REASON`` is not.
"""

import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from tests.support.daemon import BIN, Lxpyd

_FENCE = re.compile(r"(?P<indent> *)```(?P<kind>\w*)\s*\Z")
_NOT_RUN = re.compile(r"# not run:\s*(?P<reason>.*)\Z")
_BLOCK_SECONDS = 180


@dataclass(frozen=True)
class Block:
    """One fenced block: the page's line its text begins on (1 is the first), the text, why it is not run or ""."""

    page: str
    line: int
    text: str
    not_run: str = ""


def blocks(page: pathlib.Path) -> list[Block]:
    """The ``sh`` blocks of a page, in order."""
    found: list[Block] = []
    open_kind, begin, text, indent = "", 0, [""], ""
    inside = False
    for number, line in enumerate(page.read_text().splitlines(), 1):
        fence = _FENCE.match(line)
        if fence and not inside:
            inside, open_kind, begin, text, indent = True, fence["kind"], number + 1, [], fence["indent"]
        elif fence and not fence["kind"]:
            inside = False
            if open_kind == "sh":
                reason = _NOT_RUN.match(text[0]) if text else None
                found.append(Block(page.name, begin, "\n".join(text) + "\n", reason["reason"] if reason else ""))
        elif inside:
            text.append(line.removeprefix(indent))
    assert not inside, f"{page.name}: the block of line {begin} is not closed"
    return found


class Machine:
    """A network and mount namespace with a daemon that ``lxpy init --auto`` has set up, as a reader's would be.

    Args:
        number: as `Lxpyd` has it.
    """

    def __init__(self, number: int) -> None:
        unshare = ["unshare", "--net", "--mount", sys.executable, "-m", "tests.support.namespace"]
        self._holder = subprocess.Popen(
            [*unshare, "sh", "-c", "echo ready; exec sleep infinity"],
            cwd=pathlib.Path(__file__).parents[2], stdout=subprocess.PIPE, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        assert self._holder.stdout and self._holder.stdout.readline() == b"ready\n"
        self.daemon = Lxpyd("d", number)
        self.daemon.prefix = ["nsenter", "-t", str(self._holder.pid), "--net", "--mount"]
        self.daemon.environment["PATH"] = f"{BIN}:{self.daemon.environment['PATH']}"
        self.daemon.start()
        self.daemon.cli("init", "--auto")
        self._fresh = self._state()

    def close(self) -> None:
        """Ends the daemon and takes the namespaces away."""
        try:
            self.clean()
            self.daemon.destroy()
        finally:
            self._holder.send_signal(signal.SIGTERM)
            self._holder.wait(10)
            assert self._holder.stdout
            self._holder.stdout.close()

    def run(self, page: pathlib.Path) -> None:
        """Runs the page in a directory of its own.

        Raises:
            AssertionError: a command failed; with page, line, command and what was printed.
        """
        folder = pathlib.Path(tempfile.mkdtemp(dir=self.daemon.dir, prefix="page-"))
        try:
            for block in blocks(page):
                if not block.not_run:
                    self._run(block, folder)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _run(self, block: Block, folder: pathlib.Path) -> None:
        with tempfile.TemporaryDirectory() as own:
            script, prelude, failed = (pathlib.Path(own) / name for name in ("block", "prelude", "failed"))
            script.write_text(block.text)
            prelude.write_text(f"set -eE -o pipefail\ntrap 'echo \"$LINENO\" >>{failed}' ERR\n")
            try:
                result = subprocess.run(
                    [*self.daemon.prefix, "bash", "--norc", str(script)],
                    env={**self.daemon.environment, "BASH_ENV": str(prelude)}, cwd=folder, stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=_BLOCK_SECONDS, check=False,
                )  # fmt: skip
                code, output = result.returncode, result.stdout
            except subprocess.TimeoutExpired as error:
                code, output = -1, (error.stdout or b"") + f"\n(not done after {_BLOCK_SECONDS} s)".encode()
            if code == 0:
                return
            lines = block.text.splitlines()
            at = int(failed.read_text().split()[0]) if failed.exists() else 1
            raise AssertionError(
                f"docs/{block.page}:{block.line + at - 1}: status {code}: {lines[min(at, len(lines)) - 1]}\n"
                + output.decode(errors="replace")[-4000:]
            )

    # -- between pages ---------------------------------------------------------------------------------------------

    def clean(self) -> None:
        """Takes away all that a page has made; images stay in the pool of ``default`` only if they were there."""
        api = self.daemon.api
        shutil.rmtree(self.daemon.dir / "home", ignore_errors=True)
        (self.daemon.dir / "home").mkdir()
        projects = [one["name"] for one in self._all("projects")]
        for project in projects:
            where = f"?project={quote(project)}"
            for instance in self._all("instances", project):
                if instance["project"] == project:
                    self._unprotect(instance, where)
                    api("DELETE", f"/1.0/instances/{instance['name']}{where}&force=1")
        for project in projects:
            where = f"?project={quote(project)}"
            self._delete("images", "fingerprint", where)
            for pool in self._all("storage-pools"):
                for volume in self._all(f"storage-pools/{pool['name']}/volumes", project):
                    if "/" in volume["name"]:  # a snapshot, which goes with its volume
                        continue
                    if volume["type"] == "custom" and volume.get("project", project) == project:
                        api("DELETE", f"/1.0/storage-pools/{pool['name']}/volumes/custom/{volume['name']}{where}")
            if project == "default":
                # Documents are put back by content, so that nothing of a page's own keeps them in use.
                fresh = next(one for one in self._fresh["profiles"] if one["name"] == "default")
                api("PUT", "/1.0/profiles/default", {key: fresh[key] for key in ("config", "description", "devices")})
            elif not self._mine(project, "profiles"):
                continue
            else:
                api("PUT", f"/1.0/profiles/default{where}", {"config": {}, "devices": {}, "description": ""})
            self._delete("profiles", "name", where, keep="default")
        for kind in ("network-acls", "network-zones"):
            self._delete(kind, "name", "", keep=[one["name"] for one in self._fresh.get(kind, ())])
        kept = {one["name"]: one for one in self._fresh["networks"] if one["managed"]}
        for network in self._all("networks"):
            if network["managed"] and network["name"] not in kept:
                api("DELETE", f"/1.0/networks/{network['name']}")
            elif network["managed"]:
                self._put_back("networks", kept[network["name"]], network)
        self._delete("storage-pools", "name", "", keep=[one["name"] for one in self._fresh["storage-pools"]])
        for project in projects:
            if project != "default":
                api("DELETE", f"/1.0/projects/{quote(project)}")
        self._delete("certificates", "fingerprint", "")
        api("PUT", "/1.0", {"config": self._fresh["config"]})
        left = self._state()
        assert left == self._fresh, f"cannot be taken away again: {_difference(self._fresh, left)}"

    def _mine(self, project: str, kind: str) -> bool:
        return bool(
            self.daemon.api("GET", f"/1.0/projects/{quote(project)}")["config"].get(f"features.{kind}") == "true"
        )

    def _unprotect(self, instance: dict[str, Any], where: str) -> None:
        if instance["expanded_config"].get("security.protection.delete", "false") != "false":
            body = {"config": {"security.protection.delete": "false"}}
            self.daemon.api("PATCH", f"/1.0/instances/{instance['name']}{where}", body)

    def _put_back(self, kind: str, fresh: dict[str, Any], now: dict[str, Any]) -> None:
        if any(fresh[key] != now[key] for key in ("config", "description")):
            body = {key: fresh[key] for key in ("config", "description")}
            self.daemon.api("PUT", f"/1.0/{kind}/{fresh['name']}", body)

    def _all(self, kind: str, project: str = "default") -> list[dict[str, Any]]:
        result = self.daemon.cli("query", f"/1.0/{kind}?recursion=1&project={quote(project)}", check=False)
        if result.returncode:
            return []  # this lxpy has no such objects
        import json

        found: list[dict[str, Any]] = json.loads(result.stdout) or []
        return found

    def _delete(self, kind: str, key: str, where: str, keep: "str | list[str]" = ()) -> None:  # type: ignore[assignment]
        project = where.partition("=")[2] or "default"
        for one in self._all(kind, project):
            if one[key] not in keep and one.get("project", project) == project:
                self.daemon.api("DELETE", f"/1.0/{kind}/{quote(one[key])}{where}")

    def _state(self) -> dict[str, Any]:
        """What a page may change and `clean` puts back."""
        kinds = ("instances", "images", "profiles", "networks", "network-acls", "network-zones", "storage-pools",
                 "projects", "certificates")  # fmt: skip
        found: dict[str, Any] = {kind: [_plain(one) for one in self._all(kind)] for kind in kinds}
        found["config"] = self.daemon.json("query", "/1.0")["config"]
        return found


def _plain(one: dict[str, Any]) -> dict[str, Any]:
    """An object without what only follows from others."""
    return {key: value for key, value in one.items() if key not in ("used_by", "last_used_at")}


def _difference(old: dict[str, Any], new: dict[str, Any]) -> str:
    return "; ".join(f"{key}: {old[key]} is now {new[key]}" for key in old if old[key] != new[key])
