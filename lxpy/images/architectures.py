"""Names of processor architectures: the kernel's (LXD's own), Debian's (simplestreams'), and which run here."""

import os

from lxpy.api.errors import BadRequest

# Kernel name -> Debian name, as used in product keys (`dpkg-architecture -L`).
DEBIAN: dict[str, str] = {
    "x86_64": "amd64",
    "i686": "i386",
    "aarch64": "arm64",
    "armv8l": "armhf",
    "armv7l": "armhf",
    "armv6l": "armel",
    "ppc64le": "ppc64el",
    "ppc64": "powerpc64",
    "ppc": "powerpc",
    "s390x": "s390x",
    "riscv64": "riscv64",
    "loongarch64": "loong64",
    "mips64": "mips64el",
    "mips": "mipsel",
}
_KERNEL = {debian: kernel for kernel, debian in reversed(DEBIAN.items())} | {
    "armhf": "armv7l",
    "armv8": "aarch64",
    "x86": "i686",
    "i586": "i686",
    "loongarch64": "loongarch64",
}
# The 32-bit code a 64-bit kernel runs as well.
_PERSONALITY = {"x86_64": "i686", "aarch64": "armv7l", "ppc64": "ppc", "s390x": "s390", "mips64": "mips"}


def kernel_name(name: str) -> str | None:
    """LXD's name (``x86_64``) of an architecture given by its Debian, kernel or Alpine name; None if unknown."""
    low = name.lower()
    if low in DEBIAN:
        return low
    return _KERNEL.get(low)


def debian_name(name: str) -> str:
    """Debian's name (``amd64``); an unknown one comes back unchanged."""
    kernel = kernel_name(name)
    return DEBIAN.get(kernel or name, name)


def native() -> list[str]:
    """Kernel names of the architectures this machine runs, best first."""
    machine = os.uname().machine
    other = _PERSONALITY.get(machine)
    return [machine, other] if other else [machine]


def check_runs(architecture: str) -> None:
    """Raises `BadRequest` when this machine cannot run it."""
    if architecture not in native():
        raise BadRequest(f"The image is for {architecture}; this machine runs {' and '.join(native())}")
