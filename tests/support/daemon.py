"""A daemon of the tests' own, and the command line in front of it."""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable
from typing import Any

from lxpy.api.layout import Layout
from tests.support import images, namespace

BIN = namespace.path("bin")  # the lean launchers of `lxpy` and `lxpyd`, as install.sh writes them
Result = subprocess.CompletedProcess[str]
_PATIENCE = 15.0  # seconds: what takes two of them takes many where others use the machine


class Lxpyd:
    """One lxpyd with its own ``LXPY_DIR``, bridge, subnet, cgroup prefix and id maps.

    Args:
        name: part of the directory's name.
        number: 0 to 255, unlike that of any other daemon running at the same time.
    """

    def __init__(self, name: str, number: int) -> None:
        self.number = number
        self.dir = namespace.run_dir(f"{name}{number}")
        self.layout = Layout(str(self.dir))
        self.bridge = f"lxt{number}"
        self.address = f"10.97.{number}.1"
        self.log = self.dir / "lxpyd.stderr"
        self.counter = 0
        self.process: subprocess.Popen[bytes] | None = None
        self.prefix: list[str] = []  # what every command is put behind (nsenter ...)
        self.launcher = "lxpyd"  # or "lxpyd-fused": see `tests.support.fuse`
        self.environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith(("LXPY_", "LXD_"))},
            "LXPY_DIR": str(self.dir),
            "LXPY_IDMAP": f"{10_000_000 + number * 8_000_000}:8000000",
            "HOME": str(self.dir / "home"),
            "XDG_CONFIG_HOME": str(self.dir / "home/.config"),
            "LXPY_ACTIVATE": "0",  # the tests say when a daemon starts
            "LC_ALL": "C.UTF-8",
            "TERM": "xterm-256color",
        }
        shutil.rmtree(self.dir / "home", ignore_errors=True)  # of the one before: its remotes
        (self.dir / "home").mkdir()
        write_launchers()

    # -- the process ---------------------------------------------------------------------------------------------

    def start(self, **environment: str) -> None:
        """Starts lxpyd and waits until its socket answers."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*self.prefix, str(BIN / self.launcher)],
                env={**self.environment, **environment}, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip
        end = time.monotonic() + 60
        while self.cli("query", "/1.0", check=False).returncode:
            if self.process.poll() is not None or time.monotonic() > end:
                raise AssertionError(f"lxpyd does not answer:\n{self.log.read_text()[-4000:]}")
            time.sleep(0.05)

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Ends lxpyd alone; what it manages goes on."""
        assert self.process
        self.process.send_signal(number)
        self.process.wait(30)
        self.process = None

    def restart(self, *, kill: bool = False) -> None:
        """Ends lxpyd (by SIGTERM, or SIGKILL) and starts it again."""
        self.kill(signal.SIGKILL if kill else signal.SIGTERM)
        self.start()

    def initialise(self) -> None:
        """Pools, bridge and default profile by ``init --preseed``; the image ``bb``."""
        self.cli("init", "--preseed", input=self.preseed())
        self.import_image("busybox", "bb")

    def preseed(self) -> str:
        """Addresses below 100 and above 219 are the tests' own: no guest is given one by chance."""
        return f"""\
config: {{}}
networks:
- name: {self.bridge}
  type: bridge
  config:
    ipv4.address: {self.address}/24
    ipv4.nat: "true"
    ipv4.dhcp.ranges: {self.address[:-1]}100-{self.address[:-1]}219
    ipv6.address: fd42:97:{self.number:x}::1/64
storage_pools:
- name: default
  driver: overlay
- name: plain
  driver: dir
profiles:
- name: default
  devices:
    root: {{path: /, pool: default, type: disk}}
    eth0: {{name: eth0, network: {self.bridge}, type: nic}}
"""

    def import_image(self, recipe: str, alias: str) -> None:
        metadata, rootfs = images.files(recipe)
        self.cli("image", "import", str(metadata), str(rootfs), "--alias", alias)

    def destroy(self) -> None:
        """Deletes everything through the daemon, then ends it."""
        if self.process is None:
            self.start()
        for instance in self.json("list", "--all-projects", "-f", "json"):
            self.cli("delete", "-f", instance["name"], "--project", instance["project"])
        for image in self.json("image", "list", "-f", "json"):
            self.cli("image", "delete", image["fingerprint"])
        self.api("PUT", "/1.0/profiles/default", {"config": {}, "devices": {}, "description": ""})
        for profile in self.json("query", "/1.0/profiles"):
            if not profile.endswith("/default"):
                self.api("DELETE", profile)
        for network in self.json("query", "/1.0/networks?recursion=1"):
            if network["managed"]:
                self.api("DELETE", f"/1.0/networks/{network['name']}")
        for pool in self.json("query", "/1.0/storage-pools"):
            for volume in self.json("query", f"{pool}/volumes/custom?all-projects=true"):
                if "/snapshots/" not in volume:
                    self.api("DELETE", volume)
            self.api("DELETE", pool)
        self.api("PUT", "/1.0", {"config": {}})  # the next daemon of this number has the same directory
        for certificate in self.json("query", "/1.0/certificates"):
            self.api("DELETE", certificate)
        for name in self.out("config", "trust", "list-tokens", "-f", "csv").splitlines():
            self.cli("config", "trust", "revoke-token", name.partition(",")[0])
        self.kill(signal.SIGTERM)

    # -- the command line ----------------------------------------------------------------------------------------

    def cli(
        self, *args: str, input: str | bytes | None = None, check: bool = True, timeout: float = 120, **environment: str
    ) -> Result:
        """Runs ``lxpy ARGS`` without a terminal; stdout and stderr as text.

        Raises:
            AssertionError: it failed although `check` is set; with what it wrote.
        """
        result = subprocess.run(
            [*self.prefix, str(BIN / "lxpy"), *args],
            env={**self.environment, **environment}, capture_output=True, check=False, timeout=timeout, cwd="/",
            **({"stdin": subprocess.DEVNULL} if input is None else {"input": _bytes(input)}),
        )  # fmt: skip
        text = subprocess.CompletedProcess(
            result.args, result.returncode, result.stdout.decode(errors="replace"),
            result.stderr.decode(errors="replace"),
        )  # fmt: skip
        if check and text.returncode:
            raise AssertionError(f"lxpy {' '.join(args)}: status {text.returncode}\n{text.stdout}{text.stderr}")
        return text

    def out(self, *args: str, **options: Any) -> str:
        """What ``lxpy ARGS`` prints, without the last line's end."""
        return self.cli(*args, **options).stdout.rstrip("\n")

    def json(self, *args: str) -> Any:
        return json.loads(self.cli(*args).stdout)

    def spawn(self, *args: str, **options: Any) -> subprocess.Popen[bytes]:
        """``lxpy ARGS`` in the background, with pipes."""
        options = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
        return subprocess.Popen([*self.prefix, str(BIN / "lxpy"), *args], env=self.environment, cwd="/", **options)

    def api(self, method: str, path: str, body: Any = None) -> Any:
        """One API call through ``lxpy query``; waits for an operation."""
        data = ["-d", json.dumps(body)] if body is not None else []
        text = self.cli("query", "--wait", "-X", method, *data, path).stdout
        return json.loads(text) if text.strip() else None

    def sh(self, instance: str, script: str, **options: Any) -> Result:
        """A shell script inside an instance."""
        return self.cli("exec", instance, "-n", "-T", "--", "sh", "-c", script, **options)

    # -- questions -----------------------------------------------------------------------------------------------

    def instance(self, name: str) -> dict[str, Any]:
        found = [item for item in self.json("list", "-f", "json") if item["name"] == name]
        assert found, f"no instance {name}"
        instance: dict[str, Any] = found[0]
        return instance

    def status(self, name: str) -> str:
        return str(self.instance(name)["status"]).upper()

    def addresses(self, name: str, family: str = "inet") -> list[str]:
        """Global addresses of an instance's eth0, as the list has them."""
        state = self.instance(name).get("state") or {}
        eth0 = (state.get("network") or {}).get("eth0") or {}
        return [a["address"] for a in eth0.get("addresses", []) if a["family"] == family and a["scope"] == "global"]

    def wait_address(self, name: str, seconds: float = 30) -> str:
        return str(until(lambda: self.addresses(name), seconds, f"no IPv4 address of {name}")[0])

    def wait_status(self, name: str, status: str, seconds: float = 20) -> None:
        until(lambda: self.status(name) == status, seconds, f"{name} is not {status}")

    def init_pid(self, name: str) -> int:
        return int(self.json("query", f"/1.0/instances/{name}/state")["pid"])

    def sweep(self, prefix: str) -> None:
        """Deletes the instances named `prefix` or ``prefix-…``."""
        if self.process is None:
            return
        for instance in self.json("list", "-f", "json"):
            if instance["name"] == prefix or instance["name"].startswith(f"{prefix}-"):
                self.cli("delete", "-f", instance["name"], check=False)

    def snapshot(self) -> dict[str, Any]:
        """Everything a refused command must leave alone."""
        tree = sorted(str(p) for folder in ("storage-pools", "images") for p in (self.dir / folder).glob("*/*"))
        return {
            "instances": [
                (i["name"], i["status"], i["config"], i["devices"], i["profiles"])
                for i in self.json("list", "-f", "json")
            ],
            "images": [i["fingerprint"] for i in self.json("image", "list", "-f", "json")],
            "profiles": self.json("query", "/1.0/profiles?recursion=1"),
            "networks": [n for n in self.json("query", "/1.0/networks?recursion=1") if n["managed"]],
            "pools": self.json("query", "/1.0/storage-pools?recursion=1"),
            "files": tree,
            "cgroups": sorted(map(str, namespace.cgroups(self.layout.cgroup_prefix))),
        }


def until(condition: Callable[[], Any], seconds: float, message: str, every: float = 0.05) -> Any:
    """What `condition` gives once it is true; `AssertionError` with `message` after `seconds`, or `_PATIENCE`."""
    end = time.monotonic() + max(seconds, _PATIENCE)
    while not (value := condition()):
        if time.monotonic() > end:
            raise AssertionError(f"{message} after {max(seconds, _PATIENCE)} s")
        time.sleep(every)
    return value


def write_launchers() -> None:
    """``lxpy`` and ``lxpyd`` of this checkout in `BIN`; and ``lxpyd-fused``, which a test can end at any step."""
    if (BIN / "lxpyd").exists():
        return
    namespace.run_dir("bin")
    folders = [str(pathlib.Path(__file__).parents[2]), sysconfig.get_path("purelib")]
    fused = "import os\nfrom tests.support.fuse import install\ninstall(os.environ['LXPY_DIR'] + '/fuse')\n"
    for name, module, before in (
        ("lxpy", "lxpy.cli.main", ""), ("lxpyd-fused", "lxpy.daemon.main", fused), ("lxpyd", "lxpy.daemon.main", ""),
    ):  # fmt: skip
        new = BIN / f".{name}.{os.getpid()}"
        new.write_text(
            f"#!{sys.executable} -IS\nimport _signal, sys\nif _signal.getsignal(2) is _signal.default_int_handler:\n"
            f"    _signal.signal(2, _signal.SIG_DFL)\nsys.path += {folders}\n{before}"
            f"from {module} import main\nsys.exit(main())\n"
        )
        new.chmod(0o755)
        new.rename(BIN / name)


def _bytes(data: str | bytes) -> bytes:
    return data.encode() if isinstance(data, str) else data
