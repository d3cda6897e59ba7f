"""What network ACLs log: read from the kernel by NFLOG, written as a file of JSON lines that is kept small.

NFLOG and not the kernel's log: it works in any network namespace, needs neither journald nor klogd, and nobody else's
messages are among it. Numbers: linux/netfilter/nfnetlink_log.h.
"""

import asyncio
import contextlib
import datetime
import json
import os
import socket
import struct
from collections.abc import Callable

from lxpy.api.notices import ACLS, Notice
from lxpy.linux import rtnetlink

_NETLINK_NETFILTER, _SUBSYSTEM_ULOG, _PACKET, _CONFIG = 12, 4, 0, 1
_CFG_CMD, _CFG_MODE, _CFG_TIMEOUT, _CMD_BIND, _COPY_PACKET = 1, 2, 4, 1, 2
_ATTR_HEADER, _ATTR_PAYLOAD, _ATTR_PREFIX = 1, 9, 10
_COPIED = 128  # bytes of each packet: IPv6 header, some extension headers, ports
_LARGEST = 1 << 20  # bytes of the log file before it becomes .1
_PROTOCOLS = {1: "icmp4", 6: "tcp", 17: "udp", 58: "icmp6"}


class AclLog:
    """Reads one NFLOG group on the event loop.

    Args:
        path: of the log file.
    """

    def __init__(self, path: str, group: int, warn: Callable[[str], None]) -> None:
        self._path, self._warn = path, warn
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_NETFILTER)
        try:
            self._socket.bind((0, 0))
            head = struct.pack("!BBH", 0, 0, group)
            self._call(head + struct.pack("=HHBxxx", 5, _CFG_CMD, _CMD_BIND))
            self._call(head + struct.pack("=HH", 10, _CFG_MODE) + struct.pack("!IBxxx", _COPIED, _COPY_PACKET))
            # A tenth of a second until a message is sent although it is not full.
            self._call(head + struct.pack("=HH", 8, _CFG_TIMEOUT) + struct.pack("!I", 10))
            self._socket.setblocking(False)
        except BaseException:
            self._socket.close()
            raise
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._socket, self._read)

    def close(self) -> None:
        self._loop.remove_reader(self._socket)
        self._socket.close()

    def _call(self, body: bytes) -> None:
        header = struct.pack("=IHHII", 16 + len(body), _SUBSYSTEM_ULOG << 8 | _CONFIG, 0x5, 1, 0)
        self._socket.send(header + body)
        answer = self._socket.recv(4096)
        if (number := -struct.unpack_from("=i", answer, 16)[0]) != 0:
            raise OSError(number, os.strerror(number), "NFLOG")

    def _read(self) -> None:
        lines = []
        while True:
            try:
                data = self._socket.recv(1 << 16)
            except BlockingIOError:
                break
            except OSError:  # ENOBUFS: some were lost, as logs under a flood are
                continue
            offset = 0
            while offset + 16 <= len(data):
                length, kind = struct.unpack_from("=IH", data, offset)
                if length < 16:
                    break
                if kind == _SUBSYSTEM_ULOG << 8 | _PACKET:
                    lines.append(json.dumps(entry(data[offset + 16 : offset + length])))
                offset += (length + 3) & ~3
        if lines:
            try:
                self._write("".join(f"{line}\n" for line in lines))
            except OSError as error:
                self._warn(Notice(f"The log of network ACLs cannot be written: {error.strerror}", ACLS))

    def _write(self, text: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            if os.stat(self._path).st_size > _LARGEST:
                os.rename(self._path, f"{self._path}.1")
        with open(self._path, "a", encoding="utf-8", opener=lambda path, flags: os.open(path, flags, 0o600)) as file:
            file.write(text)


def entry(body: bytes) -> dict[str, str]:
    """One packet: time, ACLs, rule (``ingress.0``; ``ingress`` is the default), action, subject, addresses, ports."""
    found = rtnetlink.attributes(body, 4)
    prefix = found.get(_ATTR_PREFIX, b"").rstrip(b"\0").decode(errors="replace")
    acls, rule, action, subject = (*prefix.split("|"), "", "", "")[:4]
    result = {
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "acl": acls, "rule": rule, "action": action, "subject": subject,
    }  # fmt: skip
    return {**result, **_packet(found.get(_ATTR_PAYLOAD, b""))}


def _packet(data: bytes) -> dict[str, str]:
    version = data[0] >> 4 if data else 0
    if version == 4 and len(data) >= 20:
        protocol, rest = data[9], data[(data[0] & 15) * 4 :]
        source, target = socket.inet_ntop(socket.AF_INET, data[12:16]), socket.inet_ntop(socket.AF_INET, data[16:20])
    elif version == 6 and len(data) >= 40:
        protocol, rest = data[6], data[40:]
        source, target = socket.inet_ntop(socket.AF_INET6, data[8:24]), socket.inet_ntop(socket.AF_INET6, data[24:40])
    else:
        return {}
    result = {"proto": _PROTOCOLS.get(protocol, str(protocol)), "src": source, "dst": target}
    if protocol in (6, 17) and len(rest) >= 4:
        ports = struct.unpack_from("!HH", rest)
        result |= {"src_port": str(ports[0]), "dst_port": str(ports[1])}
    elif protocol in (1, 58) and len(rest) >= 2:
        result |= {"icmp_type": str(rest[0]), "icmp_code": str(rest[1])}
    return result


def of_acl(path: str, name: str) -> str:
    """The lines about one ACL, oldest first."""
    lines = []
    for file in (f"{path}.1", path):
        with contextlib.suppress(FileNotFoundError), open(file, encoding="utf-8", errors="replace") as text:
            for line in text:
                with contextlib.suppress(ValueError):
                    if name in str(json.loads(line).get("acl", "")).split(","):
                        lines.append(line)
    return "".join(lines)
