"""A host outside: a network namespace behind a link of its own, with a route to nothing but this host."""

import contextlib
import pathlib
import subprocess
from collections.abc import Iterator


class Outside:
    """A neighbour of this host.

    Args:
        name: of the namespace and, shortened, of the link.
        number: 1 to 254; the link has the subnets ``198.18.N.0/24`` and ``fd99:N::/64`` (N in hexadecimal).
    """

    def __init__(self, name: str, number: int) -> None:
        self.name = f"{name}{number}"
        self.link = f"lxo{number}"
        self.here, self.there = f"198.18.{number}.1", f"198.18.{number}.2"
        self.here6, self.there6 = f"fd99:{number:x}::1", f"fd99:{number:x}::2"
        peer = f"lxp{number}"
        for line in (
            f"netns add {self.name}",
            f"link add {self.link} type veth peer name {peer} netns {self.name}",
            f"addr add {self.here}/24 dev {self.link}",
            f"addr add {self.here6}/64 dev {self.link} nodad",
            f"link set {self.link} up",
            f"-n {self.name} link set lo up",
            f"-n {self.name} addr add {self.there}/24 dev {peer}",
            f"-n {self.name} addr add {self.there6}/64 dev {peer} nodad",
            f"-n {self.name} link set {peer} up",
            f"-n {self.name} route add default via {self.here}",
            f"-n {self.name} -6 route add default via {self.here6}",
        ):
            subprocess.run(["ip", *line.split()], check=True)

    def close(self) -> None:
        subprocess.run(["ip", "netns", "del", self.name], check=True)
        subprocess.run(["ip", "link", "del", self.link], check=False, stderr=subprocess.DEVNULL)

    def run(self, *command: str, timeout: float = 10) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["ip", "netns", "exec", self.name, *command], capture_output=True, text=True, timeout=timeout, check=False
        )

    def spawn(self, *command: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            ["ip", "netns", "exec", self.name, *command], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
        )


def ask(address: str, port: int, udp: bool = False) -> list[str]:
    """The command that connects and prints what it is told; silent when there is no answer within a second."""
    flags = ["-u"] if udp else []
    return ["sh", "-c", f"echo asked | timeout 2 busybox nc {' '.join(flags)} -w 1 {address} {port}"]


def answering(word: str, port: int, udp: bool = False) -> str:
    """The script that serves `word` on a port of all addresses, in the background."""
    flags = "-u " if udp else ""
    return f"nc {flags}-ll -p {port} -e echo {word} >/dev/null 2>&1 </dev/null &"


@contextlib.contextmanager
def without_br_netfilter() -> Iterator[None]:
    """Bridged frames do not pass the rules of IP, as on a host that never loaded br_netfilter (this namespace only)."""
    switches = list(pathlib.Path("/proc/sys/net/bridge").glob("bridge-nf-call-ip*tables"))
    before = {path: path.read_text() for path in switches}
    for path in switches:
        path.write_text("0")
    yield
    for path, value in before.items():
        path.write_text(value)
