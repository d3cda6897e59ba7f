"""top, info and info --isolation: what is shown is what the kernel says."""

import json
import os
import pathlib
import select
import subprocess
import time

import pytest
import yaml

from tests.support.daemon import BIN, Lxpyd, until

_BURN = "while :; do :; done"


def _top(lxpyd: Lxpyd, *arguments: str) -> dict[str, dict[str, object]]:
    return {one["name"]: one for one in lxpyd.json("top", "-f", "json", "-d", "0.5", *arguments)}


def test_top_shows_who_uses_what(lxpyd: Lxpyd, name: str, tmp_path: pathlib.Path) -> None:
    busy, idle = f"{name}-busy", f"{name}-idle"
    lxpyd.cli("launch", "bb", busy, "-c", "limits.cpu=1", "-c", "limits.memory=100MiB", "-c", "limits.processes=77")
    lxpyd.cli("launch", "bb", idle)
    lxpyd.wait_address(busy)
    before = {one["name"]: one for one in lxpyd.json("query", "/1.0/usage")["instances"]}
    writer = "while :; do dd if=/dev/zero of=/f bs=1M count=4 oflag=direct; done"
    script = f"ping -A -s 1000 {lxpyd.address} > /dev/null & {writer}"
    burner = lxpyd.spawn("exec", busy, "-n", "-T", "--", "sh", "-c", script)
    spinner = lxpyd.spawn("exec", busy, "-n", "-T", "--", "sh", "-c", _BURN)
    try:
        until(lambda: float(str(_top(lxpyd)[busy]["cpu"])) > 20, 15, "the burner is not seen")
        found = _top(lxpyd)
        one, other = found[busy], found[idle]
        assert float(str(one["cpu"])) > 5 * float(str(other["cpu"])) and float(str(one["cpu"])) < 130
        for key in ("disk_written", "network_sent", "network_received"):
            assert int(str(one[key])) > 50_000 > int(str(other[key])), key
        assert (one["memory_limit"], one["processes_limit"], one["cpus"]) == (100 << 20, 77, 1)
        assert (other["memory_limit"], other["processes_limit"], other["cpus"]) == (0, 0, os.cpu_count())
        assert 0 < int(str(one["memory"])) < 100 << 20
        # What it counts is what the kernel counts.
        after = {one["name"]: one for one in lxpyd.json("query", "/1.0/usage")["instances"]}
        assert after[busy]["cpu_ns"] > before[busy]["cpu_ns"] + 200_000_000
        inside = int(lxpyd.sh(busy, "cat /sys/class/net/eth0/statistics/tx_bytes").stdout)
        assert abs(inside - after[busy]["network_sent"]) < inside / 2
        # By any column, both ways.
        order = [
            line.partition(",")[0]
            for line in lxpyd.out("top", "-f", "csv", "-d", "0.3", "--sort", "-name").splitlines()
        ]
        assert order == sorted(order, reverse=True) and {busy, idle} <= set(order)
        by_cpu = [line.partition(",")[0] for line in lxpyd.out("top", "-f", "csv", "-d", "0.5").splitlines()]
        assert by_cpu.index(busy) < by_cpu.index(idle)
        table = lxpyd.out("top", "-d", "0.2", "-n", "2")
        assert table.count("CPU%") == 2 and "/100M" in table and "/77" in table and "PROJECT" not in table
        assert "PROJECT" in lxpyd.out("top", "-d", "0.2", "--all-projects")
    finally:
        lxpyd.cli("delete", "-f", busy, idle)
        burner.communicate(timeout=10)
        spinner.communicate(timeout=10)
    assert busy not in _top(lxpyd)


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("--sort", "colour"), "unknown column"),
        (("-d", "0"), "--delay takes seconds"),
        (("-d", "soon"), "--delay takes seconds"),
        (("-n", "-1"), "--iterations takes a number"),
        (("-f", "xml"), "unknown format"),
        (("c1",), "takes a remote"),
    ],
)
def test_what_top_does_not_understand(lxpyd: Lxpyd, arguments: tuple[str, ...], word: str) -> None:
    refused = lxpyd.cli("top", *arguments, check=False)
    assert refused.returncode == 1 and word in refused.stderr and refused.stderr.count("\n") == 1


class _Terminal:
    """``lxpy top`` on a terminal of its own."""

    def __init__(self, lxpyd: Lxpyd, *arguments: str) -> None:
        self.master, slave = os.openpty()
        subprocess.run(["stty", "-F", os.ttyname(slave), "rows", "24", "cols", "100"], check=True)
        self.process = subprocess.Popen(
            [BIN / "lxpy", "top", *arguments], stdin=slave, stdout=slave, stderr=slave, env=lxpyd.environment
        )
        os.close(slave)
        self.text = ""

    def until(self, word: str) -> str:
        """The last screen that has a word."""
        end = time.monotonic() + 15
        while time.monotonic() < end:
            if select.select([self.master], [], [], 0.1)[0]:
                self.text += os.read(self.master, 65536).decode()
            screen = self.text.rpartition("\x1b[H")[2]
            if word in screen and screen.endswith("\x1b[J"):
                return screen
        raise AssertionError(f"no {word!r} in {self.text[-2000:]!r}")

    def type(self, keys: str) -> None:
        self.text = ""
        os.write(self.master, keys.encode())


def test_top_fills_a_terminal_and_leaves_it_as_it_was(lxpyd: Lxpyd, busybox: str) -> None:
    lxpyd.cli("launch", "bb", f"{busybox}-z")
    terminal = _Terminal(lxpyd, "-d", "0.3")
    screen = terminal.until(busybox)
    assert "\x1b[?1049h" in terminal.text and "\x1b[7mCPU%" in screen.replace(" ", "")
    terminal.type("n")
    screen = terminal.until(f"{busybox}-z")
    assert "\x1b[7mNAME" in screen
    assert screen.index(f"{busybox} ") < screen.index(f"{busybox}-z")
    terminal.type("n")
    screen = terminal.until(f"{busybox}-z")
    assert screen.index(f"{busybox}-z") < screen.index(f"{busybox} ")
    terminal.type("\x1b[D")  # the column before the first is the last
    assert "\x1b[7mPROCESSES" in terminal.until("PROCESSES")
    # It lives: one that starts and one that ends are seen, in another size, too.
    subprocess.run(["stty", "-F", f"/proc/{terminal.process.pid}/fd/0", "rows", "10", "cols", "40"], check=True)
    lxpyd.cli("stop", "-f", f"{busybox}-z")
    terminal.text = ""
    screen = until(lambda: (one := terminal.until(busybox)) and f"{busybox}-z" not in one and one, 10, "it stays")
    assert all(len(line) <= 60 for line in screen.split("\r\n"))
    terminal.type("q")
    assert terminal.process.wait(10) == 0
    rest = os.read(terminal.master, 65536).decode()
    assert rest.endswith("\x1b[?25h\x1b[?1049l")
    os.close(terminal.master)


def test_info_shows_use_and_limit(lxpyd: Lxpyd, name: str) -> None:
    lxpyd.cli(
        "launch", "bb", name, "-c", "limits.memory=64MiB", "-c", "limits.processes=50", "-c", "limits.cpu=1",
        "-c", "limits.cpu.allowance=25ms/100ms", "-c", "limits.kernel.nofile=100:200", "-c", "limits.disk.priority=8",
        "-c", "limits.network.priority=3",
    )  # fmt: skip
    lxpyd.cli("config", "device", "override", name, "root", "limits.read=10MiB", "limits.write=500iops")
    shown = lxpyd.out("info", name)
    for words in (
        "Memory: ", " of 64.00MiB (", "Processes: ", " of 50", "CPUs: ", "CPU time: 25 ms in every 100 ms",
        "read 10.00MiB/s, write 500 operations/s", "Network card eth0: priority 3", "Of the kernel: nofile 100:200",
    ):  # fmt: skip
        assert words in shown, (words, shown)
    assert "limits.disk.priority" in shown or "Disk weight: 160" in shown
    lxpyd.cli("launch", "bb", f"{name}-free")
    assert "Limits:" not in lxpyd.out("info", f"{name}-free")


def test_isolation_is_what_the_kernel_says(lxpyd: Lxpyd, name: str) -> None:
    lxpyd.cli("launch", "bb", name, "-c", "limits.processes=55")
    lxpyd.wait_address(name)
    found = yaml.safe_load(lxpyd.out("info", "--isolation", name, "-f", "yaml"))
    again = json.loads(lxpyd.out("info", "--isolation", name, "-f", "json"))
    assert found == again | {"processes": found["processes"]}
    pid = lxpyd.init_pid(name)
    namespaces = {one["name"]: one for one in found["namespaces"]}
    for kind in ("user", "mnt", "pid", "net", "ipc", "uts", "cgroup"):
        assert os.readlink(f"/proc/{pid}/ns/{kind}") == f"{kind}:[{namespaces[kind]['inode']}]"
        assert not namespaces[kind]["host"]
        assert lxpyd.sh(name, f"readlink /proc/1/ns/{kind}").stdout.strip() == f"{kind}:[{namespaces[kind]['inode']}]"
    inside, outside, count = found["idmap"]["uid"][0]
    assert pathlib.Path(f"/proc/{pid}/uid_map").read_text().split() == [str(inside), str(outside), str(count)]
    init = next(one for one in found["processes"] if one["inside"] == 1)
    assert (init["pid"], init["uid"], init["uid_inside"], init["name"]) == (pid, outside, 0, "init")

    def same() -> bool:
        """Processes come and go: until none did so between two questions."""
        shown = lxpyd.json("info", "--isolation", name, "-f", "json")["processes"]
        inside = {int(one) for one in lxpyd.sh(name, "cd /proc; echo [0-9]*").stdout.split()}
        return {one["inside"] for one in shown} <= inside

    until(same, 10, "its processes are others inside")
    bounding = int(lxpyd.sh(name, "grep CapBnd /proc/1/status").stdout.split()[1], 16)
    assert len(found["capabilities"]["bounding"]) == bounding.bit_count()
    assert "sys_module" in found["capabilities"]["missing"] and "chown" in found["capabilities"]["effective"]
    assert found["seccomp"]["mode"] == "filter" and "kexec_load" in found["seccomp"]["refused"]
    assert found["no_new_privs"] is False
    groups = {one["path"]: one for one in found["cgroups"]}
    assert all(os.path.isdir(path) and f".payload.{name}" in path for path in groups)
    assert any(one["limits"].get("pids.max") == "55" for one in groups.values())
    assert any("1:3" in one for one in found["devices"])
    assert len(found["mounts"]) == len(lxpyd.sh(name, "cat /proc/1/mountinfo").stdout.splitlines())
    root = next(one for one in found["mounts"] if one["target"] == "/")
    assert "nodev" in root["flags"]
    words = lxpyd.out("info", "--isolation", name)
    assert f"uids 0-65535 inside are {outside}-{outside + 65535} outside" in words
    assert "pid     " in words and "its own: it sees and signals its own processes only" in words
    assert "THE HOST'S" not in words and "pids.max = 55" in words


def test_isolation_of_a_privileged_one_warns(lxpyd: Lxpyd, name: str) -> None:
    lxpyd.cli("launch", "bb", name, "-c", "security.privileged=true")
    words = lxpyd.out("info", "--isolation", name)
    assert "PRIVILEGED: root inside is root of the host" in words
    assert "user" in words and "THE HOST'S" in words
    lxpyd.cli("pause", name)
    assert "Cgroups:" in lxpyd.out("info", "--isolation", name)
    lxpyd.cli("stop", "-f", name)
    refused = lxpyd.cli("info", "--isolation", name, check=False)
    assert refused.returncode == 1 and f"Instance '{name}' is not running" in refused.stderr
    assert lxpyd.cli("info", "--isolation", "nobody-there", check=False).returncode == 1
