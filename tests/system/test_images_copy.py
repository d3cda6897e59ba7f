"""Images between two daemons over HTTPS on the loopback: copy, launch, secrets, what strangers see."""

import contextlib
import os
import pathlib
import re
import socket
import ssl
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support import images
from tests.support.daemon import Lxpyd, until
from tests.support.tarballs import metadata_tar, unified_tar


class Pair:
    """Two daemons: `here`, and `there`, which has the image `f1` (split, private, launchable) and listens at `url`."""

    def __init__(self, here: Lxpyd, there: Lxpyd, folder: pathlib.Path) -> None:
        self.here, self.there = here, there
        (folder / "meta.tar.xz").write_bytes(metadata_tar(properties={"os": "Far", "description": "Far away"}))
        (folder / "all.tar.gz").write_bytes(unified_tar(properties={"os": "Whole"}))
        _, rootfs = images.files("busybox")
        there.cli("image", "import", f"{folder}/meta.tar.xz", str(rootfs), "--alias", "f1", "--alias", "f1/more")
        there.cli("image", "import", f"{folder}/all.tar.gz", "--alias", "u1")
        self.f1, self.u1 = (there.json("query", f"/1.0/images/aliases/{name}")["target"] for name in ("f1", "u1"))
        self.url = self.own_url = self.listen(there)

    @staticmethod
    def listen(daemon: Lxpyd) -> str:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{taken.getsockname()[1]}"
        daemon.cli("config", "set", f"core.https_address={address}", "core.trust_password=sesame")
        return f"https://{address}"

    def public(self, fingerprint: str, flag: bool = True) -> None:
        self.there.api("PATCH", f"/1.0/images/{fingerprint}", {"public": flag})

    def image(self, fingerprint: str, project: str = "default") -> dict[str, Any]:
        found: dict[str, Any] = self.here.json("query", f"/1.0/images/{fingerprint}?project={project}")
        return found

    def names(self, fingerprint: str) -> list[str]:
        return [one["name"] for one in self.image(fingerprint)["aliases"]]

    def drop(self, fingerprint: str) -> None:
        self.here.cli("image", "delete", fingerprint, check=False)


@pytest.fixture(scope="module")
def two(lxpyd: Lxpyd, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    number = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    there = Lxpyd("p", 150 + number)
    there.start()
    with contextlib.ExitStack() as undo:
        undo.callback(there.destroy)
        pair = Pair(lxpyd, there, tmp_path_factory.mktemp("far"))
        pair.own_url = Pair.listen(lxpyd)  # pushing needs it
        undo.callback(lxpyd.cli, "config", "set", "core.https_address=", "core.trust_password=")
        undo.callback(_trust_nobody, lxpyd)
        lxpyd.cli("remote", "add", "far", pair.url, "--accept-certificate", "--password", "sesame")
        lxpyd.cli("remote", "add", "open", pair.url, "--accept-certificate", "--public")
        undo.callback(lxpyd.cli, "remote", "remove", "far", "open")
        yield pair


def _trust_nobody(daemon: Lxpyd) -> None:
    for one in daemon.json("config", "trust", "list", "-f", "json"):
        daemon.cli("config", "trust", "remove", one["fingerprint"])


@pytest.fixture
def pair(two: Pair) -> Iterator[Pair]:
    yield two
    for fingerprint in (two.f1, two.u1):
        two.drop(fingerprint)
        two.public(fingerprint, False)


@pytest.mark.parametrize("alias", ["f1", "u1"])
@pytest.mark.parametrize("mode", ["pull", "push", "relay"])
def test_copy_of_a_private_image(pair: Pair, mode: str, alias: str) -> None:
    fingerprint = pair.f1 if alias == "f1" else pair.u1
    copied = pair.here.out(
        "image", "copy", f"far:{alias}", "local:", "--mode", mode, "--copy-aliases", "--alias", "x1", "--public"
    )
    assert copied == "Image copied successfully!"
    image, source = pair.image(fingerprint), pair.there.json("query", f"/1.0/images/{fingerprint}")
    assert {*pair.names(fingerprint)} == {"x1", *(one["name"] for one in source["aliases"])}
    assert image["public"] and not image["cached"] and not image["auto_update"] and "update_source" not in image
    same = ("properties", "size", "architecture", "expires_at", "created_at")
    assert {key: image[key] for key in same} == {key: source[key] for key in same}
    until(lambda: not _tokens(pair.there), 3, "a secret stays valid")
    assert not _tokens(pair.here)
    assert not [path for path in (pair.here.dir / "images").iterdir() if path.name.startswith(".")]


def test_how_far_a_copy_is(pair: Pair, tmp_path: pathlib.Path) -> None:
    """In per cent, in the operation of who pulls: an app or another client sees it, too."""
    (tmp_path / "big.tar").write_bytes(unified_tar("tar", 400 << 20, properties={"os": "Big"}))
    fingerprint = pair.there.out("image", "import", f"{tmp_path}/big.tar", "--alias", "big").rpartition(" ")[2]
    copying = pair.here.spawn("image", "copy", "far:big", "local:", "--mode", "pull")
    try:

        def told() -> list[str]:
            running = pair.here.json("query", "/1.0/operations?recursion=1").get("running") or []
            return [str((one["metadata"] or {}).get("download_progress", "")) for one in running]

        until(lambda: any(re.match(r"rootfs: \d+% \(", text) for text in told()), 20, "nothing says how far it is")
    finally:
        copying.communicate(timeout=60)
        pair.drop(fingerprint)
        pair.there.cli("image", "delete", "big")
    assert copying.returncode == 0


def test_publish_to_another_server(pair: Pair, name: str) -> None:
    """There it has the alias; here nothing stays of it."""
    pair.here.cli("init", "bb", name)
    before = pair.here.json("image", "list", "-f", "json")
    said = pair.here.out("publish", name, "far:", "--alias", "published", "k=v", "--public")
    fingerprint = said.rpartition(" ")[2]
    try:
        assert pair.here.json("image", "list", "-f", "json") == before
        image = pair.there.json("query", f"/1.0/images/{fingerprint}")
        assert [one["name"] for one in image["aliases"]] == ["published"] and image["public"]
        assert image["properties"]["k"] == "v"
    finally:
        pair.there.cli("image", "delete", fingerprint, check=False)


def _tokens(daemon: Lxpyd) -> list[Any]:
    running = (daemon.json("query", "/1.0/operations?recursion=1") or {}).get("running") or []
    return [one for one in running if one["class"] == "token"]


def test_a_public_image_for_strangers(pair: Pair, name: str) -> None:
    """It is listed, shown, exported and launched; the private one is not there for them."""
    assert pair.here.out("image", "list", "open:", "-f", "csv") == ""
    for command in (["image", "info", "open:f1"], ["image", "copy", "open:f1", "local:"], ["launch", "open:f1", name]):
        refused = pair.here.cli(*command, check=False)
        assert refused.returncode == 1 and 'Image "f1" not found on open' in refused.stderr
    pair.public(pair.f1)
    assert pair.here.out("image", "list", "open:", "-f", "csv", "-c", "F") == pair.f1
    assert "Fingerprint: " + pair.f1 in pair.here.out("image", "info", "open:f1")
    assert pair.here.out("image", "alias", "list", "open:", "-f", "csv").count("f1") == 2
    pair.here.cli("image", "copy", "open:f1", "local:", "--auto-update")
    image = pair.image(pair.f1)
    assert (
        image["auto_update"]
        and image["update_source"]["alias"] == "f1"
        and image["update_source"]["server"] == pair.url
    )
    pair.drop(pair.f1)
    pair.here.cli("launch", "open:f1", name)
    pair.here.wait_status(name, "RUNNING")
    assert pair.image(pair.f1)["cached"]


def test_launch_of_a_private_image(pair: Pair, name: str) -> None:
    pair.here.cli("launch", "far:f1", name)
    assert pair.here.sh(name, "echo up").stdout == "up\n"
    assert pair.here.instance(name)["config"]["image.os"] == "Far"
    image = pair.image(pair.f1)
    assert image["cached"] and not image["auto_update"]


def _ask(url: str, method: str = "GET", headers: dict[str, str] | None = None, data: bytes | None = None) -> int:
    """The status a stranger without any certificate gets."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    request = urllib.request.Request(url, data, headers or {}, method=method)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context))
    try:
        with opener.open(request, timeout=10) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        return error.code


def test_what_strangers_may_not(pair: Pair) -> None:
    images_url, upload = f"{pair.url}/1.0/images", {"Content-Type": "application/octet-stream"}
    secret = pair.there.json("query", "-X", "POST", f"/1.0/images/{pair.f1}/secret")["metadata"]["secret"]
    assert _ask(f"{images_url}/{pair.f1}?secret={secret}") == 200
    assert _ask(f"{images_url}/{pair.u1}?secret={secret}") == 404  # another image's
    assert _ask(f"{images_url}/{pair.f1}?secret=00") == 404
    assert _ask(f"{images_url}/{pair.f1}/export") == 404
    assert _ask(f"{images_url}/{pair.f1}/secret", "POST") == 403
    assert _ask(f"{images_url}/aliases/f1") == 404
    assert _ask(f"{images_url}/{pair.f1}", "DELETE") == 403
    assert _ask(images_url, "POST", {"Content-Type": "application/json"}, b"{}") == 403
    assert _ask(images_url, "POST", upload, b"data") == 403
    for wrong in ({"X-LXD-secret": secret}, {"X-LXD-secret": secret, "X-LXD-fingerprint": pair.f1}):
        assert _ask(images_url, "POST", upload | wrong, b"data") == 403  # it is for reading
    operation = _tokens(pair.there)[0]["id"]
    assert _ask(f"{pair.url}/1.0/operations/{operation}/wait?timeout=0") == 403
    pair.there.api("DELETE", f"/1.0/operations/{operation}")
    until(lambda: _ask(f"{images_url}/{pair.f1}?secret={secret}") == 404, 5, "a cancelled secret opens")


def test_refresh_follows_the_other_server(pair: Pair, tmp_path: pathlib.Path) -> None:
    pair.public(pair.u1)
    pair.here.cli("image", "copy", "open:u1", "local:", "--alias", "mine", "--auto-update")
    assert pair.here.out("image", "refresh", "mine") == "Image already up to date."
    (tmp_path / "new.tar.gz").write_bytes(unified_tar(properties={"os": "Newer"}))
    pair.there.cli("image", "import", str(tmp_path / "new.tar.gz"), "--public", "--alias", "u1")
    try:
        said = pair.here.out("image", "refresh", "mine")
        new = said.removeprefix("Image updated: ")
        assert pair.names(new) == ["mine"]
        assert pair.here.out("image", "list", "-f", "csv", "-c", "F", pair.u1) == ""
    finally:
        pair.here.cli("image", "delete", "mine")
        pair.there.cli("image", "delete", "u1")
        pair.there.cli("image", "alias", "create", "u1", pair.u1)


@pytest.mark.parametrize("mode", ["pull", "push", "relay"])
def test_what_is_there_already_only_gets_the_alias(pair: Pair, mode: str) -> None:
    for alias in ("one", "other"):
        said = pair.here.out("image", "copy", "far:f1", "local:", "--mode", mode, "--alias", alias)
        assert said == "Image copied successfully!"
    assert {*pair.names(pair.f1)} == {"one", "other"} and not _tokens(pair.there)


def test_what_came_for_a_launch_stays_when_it_is_copied(pair: Pair, name: str) -> None:
    pair.here.cli("launch", "far:f1", name)
    assert pair.image(pair.f1)["cached"]
    pair.here.cli("image", "copy", "far:f1", "local:", "--mode", "relay", "--alias", "kept")
    assert pair.names(pair.f1) == ["kept"] and not pair.image(pair.f1)["cached"]


def test_to_another_project_of_the_same_server(pair: Pair) -> None:
    here = pair.here
    here.cli("image", "copy", "far:f1", "local:", "--alias", "near")
    refused = here.cli("image", "copy", "near", "local:", check=False)
    assert refused.returncode == 1 and "must be different" in refused.stderr
    here.cli("project", "create", "copies", "-c", "features.images=true")
    try:
        here.cli("image", "copy", "near", "local:", "--target-project", "copies", "--alias", "there")
        image = pair.image(pair.f1, "copies")
        assert [one["name"] for one in image["aliases"]] == ["there"] and image["properties"]["os"] == "Far"
        here.cli("--project", "copies", "image", "delete", "there")
    finally:
        here.cli("project", "delete", "copies")
    assert pair.names(pair.f1) == ["near"]


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        (["far:f1", "local:", "--mode", "sideways"], "use pull, push, relay"),
        (["far:f1", "local:", "--auto-update"], "needs a public image"),
        (["far:f1", "local:", "--auto-update", "--mode", "push"], "pulled"),
        (["far:nope", "local:"], 'Image "nope" not found on far'),
        (["builtin:busybox", "local:", "--mode", "push"], "servers pull"),
        (["far:f1", "local:name"], "--alias"),
        (["far:f1", "local:", "--alias", "two words"], "Invalid image alias"),
        (["builtin:busybox", "local:", "--alias", "a:b"], "Invalid image alias"),
    ],
)
def test_copies_that_cannot_be(pair: Pair, command: list[str], reason: str) -> None:
    before = pair.here.json("query", "/1.0/images")
    refused = pair.here.cli("image", "copy", *command, check=False)
    assert refused.returncode == 1 and reason in refused.stderr and len(refused.stderr.splitlines()) <= 2
    assert pair.here.json("query", "/1.0/images") == before
    assert not _tokens(pair.there) and not _tokens(pair.here)


def test_the_stock_client_copies(pair: Pair, tmp_path: pathlib.Path) -> None:
    environment = {**os.environ, "LXD_DIR": str(pair.here.dir), "LXD_CONF": str(tmp_path), "LC_ALL": "C.UTF-8"}

    def lxc(*args: str) -> str:
        done = subprocess.run(["lxc", *args], env=environment, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, f"lxc {' '.join(args)}: {done.stdout}{done.stderr}"
        return done.stdout

    lxc("remote", "add", "far", pair.url, "--accept-certificate", "--password", "sesame")
    lxc("remote", "add", "near", pair.own_url, "--accept-certificate", "--password", "sesame")
    for mode, target in (("pull", "local:"), ("push", "near:"), ("relay", "local:")):
        lxc("image", "copy", "far:f1", target, "--mode", mode, "--copy-aliases")
        assert "f1" in pair.names(pair.f1), mode
        pair.drop(pair.f1)
    pair.public(pair.u1)
    lxc("image", "copy", "far:u1", "local:", "--auto-update", "--alias", "kept")
    assert pair.image(pair.u1)["auto_update"] and pair.names(pair.u1) == ["kept"]
