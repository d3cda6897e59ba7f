"""Simplestreams, the pure part: what ``index.json`` and ``images.json`` mean, and which image an alias means.

Source of the format: the files that LXD's and Incus's servers publish.
"""

import datetime
import difflib
import re
from collections.abc import Iterable
from typing import Any, NamedTuple

from lxpy.api.errors import BadRequest, NotFound
from lxpy.images.architectures import debian_name, kernel_name, native

NATIVE_FORMAT = "products:1.0"
_SHA256 = re.compile(r"[0-9a-f]{64}\Z")
# A release of Debian that only its code name tells: which number it had or will have.
_DEBIAN_RELEASES = {
    "jessie": 8, "stretch": 9, "buster": 10, "bullseye": 11, "bookworm": 12, "trixie": 13,
}  # fmt: skip


class FileRef(NamedTuple):
    """One file of a server: `path` relative to its base URL, sha256 in hex, bytes."""

    path: str
    sha256: str
    size: int


class StreamImage(NamedTuple):
    """One image of a server: one version of one product, with one kind of root file system.

    Attributes:
        kind: ``squashfs``, ``tar`` or ``unified`` (`rootfs` is None then).
        architecture: the kernel's name, ``x86_64``.
        serial: the version's name, ``20260131_07:42``.
        newest: of its product. Only the newest carries the aliases.
        preferred: the kind to take when the version comes in several.
        deltas: fingerprint of an earlier version's image and the file (VCDIFF) that makes this squashfs of that one's.
    """

    fingerprint: str
    kind: str
    metadata: FileRef
    rootfs: FileRef | None
    product: str
    aliases: tuple[str, ...]
    architecture: str
    os: str
    release: str
    release_title: str
    version: str
    variant: str
    serial: str
    newest: bool
    preferred: bool
    requirements: dict[str, str]
    created: int
    expires: int
    deltas: tuple[tuple[str, FileRef], ...] = ()

    @property
    def size(self) -> int:
        return self.metadata.size + (self.rootfs.size if self.rootfs else 0)

    def properties(self) -> dict[str, str]:
        """Image properties as LXD derives them from a product."""
        title = self.release_title or self.release
        parts = [self.os, title, debian_name(self.architecture), f"({self.serial})"]
        values = {
            "architecture": debian_name(self.architecture),
            "description": " ".join(part for part in parts if part),
            "os": self.os,
            "release": self.release,
            "serial": self.serial,
            "type": "squashfs" if self.kind == "squashfs" else "root.tar.xz" if self.kind == "tar" else "unified",
            "variant": self.variant,
            "version": self.version,
        }
        values |= {f"requirements.{key}": value for key, value in self.requirements.items()}
        return {key: value for key, value in values.items() if value}


def product_paths(index: Any) -> list[str]:
    """Paths of the product files an index names; `BadRequest` when it is no index of images."""
    if not isinstance(index, dict) or not isinstance(index.get("index"), dict):
        raise BadRequest("the server's streams/v1/index.json is no simplestreams index")
    paths = []
    for entry in index["index"].values():
        if not isinstance(entry, dict) or entry.get("datatype") != "image-downloads" or not entry.get("products"):
            continue
        path = entry.get("path")
        if isinstance(path, str) and safe_path(path) and entry.get("format", NATIVE_FORMAT) == NATIVE_FORMAT:
            paths.append(path)
    return paths


def safe_path(path: str) -> bool:
    """Whether a server's relative path stays below its base."""
    return bool(path) and "://" not in path and not path.startswith("/") and ".." not in path.split("/")


def parse_products(data: Any) -> list[StreamImage]:
    """Every usable container image of a product file; entries that make no sense are left out, as other clients do."""
    images: list[StreamImage] = []
    products = data.get("products") if isinstance(data, dict) else None
    for key, product in products.items() if isinstance(products, dict) else ():
        if not isinstance(product, dict) or not isinstance(product.get("versions"), dict):
            continue
        architecture = kernel_name(str(product.get("arch", "")))
        if architecture is None:
            continue
        first = True
        for serial in sorted(product["versions"], reverse=True):
            found = _version(str(key), product, architecture, serial, product["versions"][serial], first)
            found = [one._replace(deltas=_deltas(product["versions"], serial)) if one.kind == "squashfs" else one
                     for one in found]  # fmt: skip
            images += found
            first = first and not found
    return images


def _version(
    key: str, product: dict[str, Any], architecture: str, serial: str, version: Any, newest: bool
) -> list[StreamImage]:
    created = _serial_date(serial)
    items = version.get("items") if isinstance(version, dict) else None
    if not created or not isinstance(items, dict):
        return []
    by_type: dict[str, dict[str, Any]] = {}
    for item in items.values():
        if isinstance(item, dict) and isinstance(item.get("ftype"), str) and safe_path(str(item.get("path", ""))):
            by_type.setdefault(item["ftype"], item)

    def image(fingerprint: Any, kind: str, metadata: FileRef | None, rootfs: FileRef | None) -> None:
        if isinstance(fingerprint, str) and _SHA256.match(fingerprint) and metadata and (rootfs or kind == "unified"):
            found.append(
                StreamImage(
                    fingerprint, kind, metadata, rootfs, key,
                    _aliases(product.get("aliases")), architecture,
                    str(product.get("os") or key.split(":")[0]), str(product.get("release") or ""),
                    str(product.get("release_title") or ""), str(product.get("version") or ""),
                    str(product.get("variant") or "default"), serial, newest, not found,
                    _requirements(product, version), created, _date(product.get("support_eol")),
                )
            )  # fmt: skip

    found: list[StreamImage] = []
    # Both worlds: LXD's names and Incus's. A server that has both means the same image.
    for name in ("lxd", "incus"):
        meta = by_type.get(f"{name}.tar.xz")
        if meta is not None and not found:
            metadata = _file(meta)
            for ftype in ("squashfs", "squashfs.img"):
                if ftype in by_type:
                    image(meta.get("combined_squashfs_sha256"), "squashfs", metadata, _file(by_type[ftype]))
            if "root.tar.xz" in by_type:
                combined = meta.get("combined_rootxz_sha256") or meta.get("combined_sha256")
                image(combined, "tar", metadata, _file(by_type["root.tar.xz"]))
        whole = by_type.get(f"{name}_combined.tar.gz")
        if whole is not None and not found:
            image(whole.get("sha256"), "unified", _file(whole), None)
    return found


def _deltas(versions: dict[str, Any], serial: str) -> tuple[tuple[str, FileRef], ...]:
    """``squashfs.vcdiff`` items: ``delta_base`` names the version they start from."""
    found: list[tuple[str, FileRef]] = []
    for item in versions[serial]["items"].values():
        if isinstance(item, dict) and item.get("ftype") == "squashfs.vcdiff" and safe_path(str(item.get("path", ""))):
            base, file = versions.get(str(item.get("delta_base", ""))), _file(item)
            items = base.get("items") if isinstance(base, dict) else None
            for meta in items.values() if isinstance(items, dict) else ():
                if isinstance(meta, dict) and meta.get("ftype") in ("lxd.tar.xz", "incus.tar.xz"):
                    fingerprint = meta.get("combined_squashfs_sha256")
                    if file and isinstance(fingerprint, str) and _SHA256.match(fingerprint):
                        found.append((fingerprint, file))
    return tuple(found)


def _file(item: dict[str, Any]) -> FileRef | None:
    sha256, size = item.get("sha256"), item.get("size")
    if not isinstance(sha256, str) or not _SHA256.match(sha256) or not isinstance(size, int) or size <= 0:
        return None
    return FileRef(str(item["path"]), sha256, size)


def _aliases(value: Any) -> tuple[str, ...]:
    return tuple(name for part in str(value or "").split(",") if (name := part.strip()))


def _requirements(product: dict[str, Any], version: dict[str, Any]) -> dict[str, str]:
    result: dict[str, str] = {}
    for source in (product, version):
        for key in ("lxd_requirements", "incus_requirements", "requirements"):
            if isinstance(source.get(key), dict):
                result |= {str(name): str(value) for name, value in source[key].items()}
    return result


def _serial_date(serial: str) -> int:
    """Seconds since 1970 of a serial's date (its first 8 characters); 0 when they are none."""
    try:
        day = datetime.datetime.strptime(serial[:8], "%Y%m%d").replace(tzinfo=datetime.UTC)
    except ValueError:
        return 0
    return int(day.timestamp()) if serial[:8].isdigit() else 0


def _date(value: Any) -> int:
    try:
        return int(datetime.datetime.fromisoformat(str(value)[:10]).replace(tzinfo=datetime.UTC).timestamp())
    except ValueError:
        return 0


def version_key(text: str) -> tuple[int, ...]:
    """Numbers of a version, for comparing: 3.9 comes before 3.20; empty when it has none."""
    return tuple(int(part) for part in re.findall(r"\d+", text)[:6]) if re.match(r"v?\d", text) else ()


def release_key(image: StreamImage) -> tuple[tuple[int, ...], str]:
    """Orders an operating system's releases: by number, told by version, release or an alias; those without one (edge,
    sid, current) come first, by name."""
    candidates = [image.version, image.release]
    candidates += [part for alias in image.aliases for part in alias.split("/")[1:2]]
    keys = [version_key(candidate) for candidate in candidates if candidate]
    number = max((key for key in keys if key), default=())
    if not number and image.release.lower() in _DEBIAN_RELEASES:
        number = (_DEBIAN_RELEASES[image.release.lower()],)
    return number, image.release.lower()


def names(image: StreamImage) -> list[str]:
    """Every alias an image answers to, shortest form first: each also with its architecture."""
    return [*image.aliases, *(f"{alias}/{debian_name(image.architecture)}" for alias in image.aliases)]


def resolve(images: Iterable[StreamImage], wanted: str, where: str) -> StreamImage:
    """The image an alias or fingerprint prefix means on a server.

    Exact aliases first; then a fingerprint's prefix; then, beyond what LXD's client does, the newest release that fits
    an operating system's bare name or a part of the full name (``alpine``, ``debian/cloud``, ``alpine/arm64``).

    Raises:
        NotFound: nothing fits; the message has the nearest names.
        BadRequest: a fingerprint prefix that several images have.
    """
    usable = [image for image in images if image.preferred and image.newest]
    everything = list(images)
    # Ubuntu's own server leaves out the distribution's name that all others start with.
    for alias in (
        [wanted or "default", wanted.removeprefix("ubuntu/")] if wanted.startswith("ubuntu/") else [wanted or "default"]
    ):
        exact = [image for image in usable if alias in names(image)]
        if best := _native(exact, alias):
            return best
    if re.fullmatch(r"[0-9a-f]{4,64}", wanted):
        matches = {image.fingerprint: image for image in everything if image.fingerprint.startswith(wanted)}
        if len(matches) > 1:
            raise BadRequest(f"More than one image of {where} has a fingerprint starting with {wanted}")
        if matches:
            return next(iter(matches.values()))
    fitting = [image for image in usable if _fits(image, wanted)]
    if fitting:
        newest = max(map(release_key, fitting))
        if best := _native([image for image in fitting if release_key(image) == newest], wanted):
            return best
    here = native()
    elsewhere = sorted(
        {debian_name(image.architecture) for image in usable if wanted in image.aliases or _fits(image, wanted)}
    )
    if elsewhere:
        raise NotFound(
            f"Image {wanted!r} of {where} exists only for {', '.join(elsewhere)}, not for {debian_name(here[0])}"
        )
    raise NotFound(f"Image {wanted!r} not found on {where}{nearest(wanted, usable)}")


def nearest(wanted: str, images: Iterable[StreamImage]) -> str:
    """``; nearest: a, b`` for an error's end, or what else to do."""
    here = native()
    images = [image for image in images if image.architecture in here]
    known = sorted({alias for image in images for alias in image.aliases if not alias.endswith(f"/{image.variant}")})
    close = difflib.get_close_matches(wanted, known, n=3, cutoff=0.5)
    if not close:
        head = wanted.split("/")[0]
        close = [alias for alias in known if alias.split("/")[0] == head][:6]
    return f"; nearest: {', '.join(close)}" if close else f"; it has {len(known)} others: see `image list`"


def _fits(image: StreamImage, wanted: str) -> bool:
    head, *parts = wanted.lower().split("/")
    systems = {image.os.lower(), image.product.split(":")[0].lower(), *(a.split("/")[0].lower() for a in image.aliases)}
    if head not in systems:
        return False
    architectures = {image.architecture, debian_name(image.architecture)}
    releases = {image.release.lower(), image.version.lower()}
    releases |= {alias.split("/")[1].lower() for alias in image.aliases if "/" in alias}
    variant = architecture = ""
    for part in parts:
        if part in architectures:
            architecture = part
        elif part == image.variant.lower():
            variant = part
        elif part not in releases or not part:
            return False
    if not variant and image.variant not in ("", "default"):
        return False
    return bool(architecture) or image.architecture in native()


def _native(images: list[StreamImage], alias: str) -> StreamImage | None:
    """The one for this machine; any, when the alias itself says which."""
    here = native()
    runnable = sorted(
        (image for image in images if image.architecture in here), key=lambda image: here.index(image.architecture)
    )
    if runnable:
        return runnable[0]
    explicit = [
        image for image in images if alias.split("/")[-1] in (debian_name(image.architecture), image.architecture)
    ]
    return explicit[0] if explicit else None
