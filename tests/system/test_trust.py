"""Who may use the HTTPS API: certificates and their names, tokens, clients restricted to projects; kill -9 amid it."""

import base64
import http.client
import json
import pathlib
import signal
import socket
import ssl
import subprocess
import time

import pytest

from lxpy.api.certificates import common_name, decode_token, der_of, validity
from lxpy.api.errors import BadRequest
from tests.support.daemon import Lxpyd, until


def _certificate(folder: pathlib.Path, name: str, days: int = 30) -> pathlib.Path:
    """``name.crt`` and ``name.key``, CN ``name@test``."""
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days",
         str(days), "-subj", f"/O=test/CN={name}@test", "-keyout", folder / f"{name}.key", "-out",
         folder / f"{name}.crt"],
        check=True, capture_output=True,
    )  # fmt: skip
    return folder / f"{name}.crt"


def test_what_is_read_of_a_certificate(tmp_path: pathlib.Path) -> None:
    for days, century in ((30, "20"), (30000, "21")):  # the second has a GeneralizedTime
        text = _certificate(tmp_path, "somebody", days).read_text()
        der = der_of(text)
        assert common_name(der) == "somebody@test"
        begins, ends = validity(der)
        shown = subprocess.run(
            ["openssl", "x509", "-noout", "-enddate", "-dateopt", "iso_8601"],
            input=text, text=True, capture_output=True, check=True,
        )  # fmt: skip
        assert ends.replace("T", " ") in shown.stdout and begins < ends and ends.startswith(century)
    assert der_of("".join(ssl.DER_cert_to_PEM_cert(der).splitlines()[1:-1])) == der
    for wrong in ("", "x", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----", "MAAA", text[:200]):
        with pytest.raises(BadRequest):
            der_of(wrong)
    for wrong in ("", "eyJhIjoxfQ==", "e30=", "W10=", "eyJ"):
        assert decode_token(wrong) is None


def _listen(daemon: Lxpyd, port: int, host: str = "127.0.0.1") -> str:
    daemon.cli("config", "set", f"core.https_address={host}:{port}")
    return f"{host}:{port}"


def _names(daemon: Lxpyd) -> list[str]:
    return [one["name"] for one in daemon.json("config", "trust", "list", "-f", "json")]


def _token(daemon: Lxpyd, *words: str) -> str:
    return daemon.out("config", "trust", "add", "-q", *words)


def test_between_two_daemons(own_lxpyd: Lxpyd, lxpyd: Lxpyd, busybox: str) -> None:
    """The client of one daemon's user comes to be trusted by the other one by a token, once."""
    there, here = lxpyd, own_lxpyd
    refused = there.cli("config", "trust", "add", "--name", "early", check=False)
    assert "set core.https_address first" in refused.stderr
    _listen(there, 19601, "")
    addresses = there.json("query", "/1.0")["environment"]["addresses"]
    assert f"{there.address}:19601" in addresses and not any(one.startswith("127.") for one in addresses)
    there.cli("config", "set", "core.remote_token_expiry=1H")
    assert "minutes to years" in there.cli("config", "set", "core.remote_token_expiry=soon", check=False).stderr
    said = there.out("config", "trust", "add", "--name", "laptop").splitlines()
    assert said[0] == "Client laptop certificate add token:"
    token = decode_token(said[1])
    assert token is not None and token.name == "laptop" and token.addresses == addresses
    assert token.expires_at > time.strftime("%Y-%m-%dT%H:%M", time.gmtime())
    assert (
        "a token for client 'laptop' already"
        in there.cli("config", "trust", "add", "--name=laptop", check=False).stderr
    )
    listed = there.json("config", "trust", "list-tokens", "-f", "json")
    assert [(one["ClientName"], one["Token"]) for one in listed] == [("laptop", said[1])]
    there.restart(kill=True)  # tokens outlive the daemon
    here.cli("remote", "add", "far", said[1])
    assert busybox in here.out("list", "far:", "-c", "n", "-f", "csv").splitlines()
    assert "laptop" in _names(there) and there.json("config", "trust", "list-tokens", "-f", "json") == []
    # It is used up.
    here.cli("remote", "rename", "far", "farther")
    assert busybox in here.out("list", "farther:", "-c", "n", "-f", "csv").splitlines()
    here.cli("config", "trust", "rename", "farther:laptop", "desk")
    assert "name: desk" in there.out("config", "trust", "show", "desk")
    there.cli("config", "trust", "edit", "desk", input="name: back\ntype: client\nrestricted: false\nprojects: []\n")
    there.cli("config", "trust", "remove", "back")
    assert "not trusted by the server" in here.cli("list", "farther:", check=False).stderr
    here.cli("remote", "remove", "farther")
    assert list((here.dir / "home/.config/lxpy/servercerts").iterdir()) == []
    again = here.cli("remote", "add", "far", said[1], check=False)
    assert "used or expired token" in again.stderr and _names(there) == []
    # Revoked, or of another server.
    other = _token(there, "--name", "other")
    there.cli("config", "trust", "revoke-token", "other")
    assert "used or expired token" in here.cli("remote", "add", "far", other, check=False).stderr
    body = {**json.loads(base64.b64decode(other)), "fingerprint": "0" * 64}
    forged = base64.b64encode(json.dumps(body).encode()).decode()
    assert "is another server" in here.cli("remote", "add", "far", forged, check=False).stderr
    third = _token(there, "--name", "third")
    here.cli("remote", "add", "far", "127.0.0.1:19601", "--token", third)
    assert _names(there) == ["third"]
    here.cli("remote", "remove", "far")
    there.cli("config", "trust", "remove", "third")
    # A server of public images wants no trust, and shows nothing else.
    here.cli("remote", "add", "pub", "127.0.0.1:19601", "--public", "--accept-certificate")
    assert here.json("image", "list", "pub:", "-f", "json") == []
    fingerprint = there.json("image", "list", "bb", "-f", "json")[0]["fingerprint"]
    there.api("PATCH", f"/1.0/images/{fingerprint}", {"public": True})
    assert [one["fingerprint"] for one in here.json("image", "list", "pub:", "-f", "json")] == [fingerprint]
    there.api("PATCH", f"/1.0/images/{fingerprint}", {"public": False})
    assert "not authorized" in here.cli("list", "pub:", check=False).stderr
    assert _names(there) == []
    here.cli("remote", "remove", "pub")
    there.cli("config", "unset", "core.https_address")
    there.cli("config", "unset", "core.remote_token_expiry")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "missing argument: a certificate file, or --name"),
        (("--name", "x", "--type", "metrics"), "serves no metrics"),
        (("--name", "x", "--projects", "nope"), "Project 'nope' not found"),
        (("--name", "a\x01b"), "must be printable"),
        (("/etc/passwd",), "is not a certificate in PEM form"),
    ],
)
def test_refused(lxpyd: Lxpyd, words: tuple[str, ...], said: str) -> None:
    result = lxpyd.cli("config", "trust", "add", *words, check=False)
    assert result.returncode == 1 and said in result.stderr and len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("add", "odd", "https://"), "names no host"),
        (("add", "odd", "127.0.0.1:99999"), "names no host and port"),
        (("add", "odd", "[::1"), "names no host"),
        (("add", "odd", "eyJ" + "x" * 200), "no token as a whole"),
        (("add", "a b", "127.0.0.1:1"), "Invalid remote name 'a b'"),
        (("rename", "images", "a:b"), "Invalid remote name 'a:b'"),
        (("set-url", "images", "https://:8443"), "names no host"),
    ],
)
def test_remotes_that_cannot_be(lxpyd: Lxpyd, words: tuple[str, ...], said: str) -> None:
    before = lxpyd.out("remote", "list", "-f", "csv")
    refused = lxpyd.cli("remote", *words, check=False)
    assert refused.returncode == 1 and said in refused.stderr and len(refused.stderr.splitlines()) == 1
    assert lxpyd.out("remote", "list", "-f", "csv") == before


def test_restricted_to_a_project(own_lxpyd: Lxpyd, lxpyd: Lxpyd, name: str) -> None:
    """Such a client sees and changes its project, and nothing else, whatever it asks for."""
    there, here = lxpyd, own_lxpyd
    _listen(there, 19602)
    project = f"p{name}"
    there.cli("project", "create", project, "-c", "features.images=false", "-c", "features.profiles=false")
    there.cli("launch", "bb", name)
    there.cli("launch", "bb", f"{name}-in", "--project", project)
    here.cli("remote", "add", "far", _token(there, "--name", "guest", "--projects", project))
    assert here.out("list", "far:", "-c", "n", "-f", "csv") == f"{name}-in"
    assert here.out("list", "far:", "-c", "n", "-f", "csv", "--all-projects") == f"{name}-in"
    assert [one["name"] for one in here.json("project", "list", "far:", "-f", "json")] == [project]
    assert [one["name"] for one in here.json("config", "trust", "list", "far:", "-f", "json")] == ["guest"]
    users = here.json("query", f"far:/1.0/networks/{there.bridge}")["used_by"]
    assert f"/1.0/instances/{name}-in?project={project}" in users and f"/1.0/instances/{name}" not in users
    here.cli("launch", "far:bb", f"far:{name}-new")  # an image of the default project, which this one shares
    here.cli("delete", "-f", f"far:{name}-new")
    assert here.out("exec", f"far:{name}-in", "--", "echo", "in") == "in"
    before = there.snapshot()
    secret = _token(there, "--name", "secret")
    for method, path, body in (
        ("GET", "/1.0/instances?project=default", None),
        ("GET", f"/1.0/instances/{name}?project=default", None),
        ("PUT", f"/1.0/instances/{name}/state?project=default", {"action": "stop"}),
        ("DELETE", f"/1.0/instances/{name}?project=default", None),
        ("POST", f"/1.0/instances?project={project}",
         {"name": "c", "source": {"type": "copy", "source": name, "project": "default"}}),
        ("POST", f"/1.0/instances/{name}-in?project={project}", {"name": "c", "project": "default"}),
        ("GET", "/1.0/events?project=default", None), ("GET", "/1.0/warnings", None),
        ("PUT", "/1.0", {"config": {}}), ("PATCH", "/1.0", {"config": {"user.a": "b"}}),
        ("POST", "/1.0/certificates", {"name": "more", "token": True}),
        ("POST", "/1.0/networks", {"name": "br9", "type": "bridge"}),
        ("DELETE", "/1.0/storage-pools/plain", None), ("POST", "/1.0/projects", {"name": "mine"}),
        ("PUT", f"/1.0/projects/{project}", {"config": {"restricted": "false"}}),
        ("GET", "/1.0/projects/default", None),
        ("PUT", f"/1.0/profiles/default?project={project}", {"config": {}, "devices": {}}),  # the default project's
        ("POST", f"/1.0/images/aliases?project={project}", {"name": "x", "target": "y"}),
    ):  # fmt: skip
        data = ["-d", json.dumps(body)] if body is not None else []
        result = here.cli("query", "-X", method, *data, f"far:{path}", check=False)
        assert result.returncode == 1 and "not authorized" in result.stderr, (method, path, result)
        assert len(result.stderr.splitlines()) == 1
    # A body that does not say what it is, is looked at all the same.
    own = here.dir / "home/.config/lxpy"
    context = ssl.create_default_context(cafile=own / "servercerts/far.crt")
    context.check_hostname = False
    context.load_cert_chain(own / "client.crt", own / "client.key")
    connection = http.client.HTTPSConnection("127.0.0.1", 19602, context=context)
    copy = {"name": "c", "source": {"type": "copy", "source": name, "project": "default"}}
    kind = {"Content-Type": "text/plain"}
    connection.request("POST", f"/1.0/instances?project={project}", json.dumps(copy), kind)
    assert connection.getresponse().status == 403
    connection.close()
    operations = here.json("query", "far:/1.0/operations?recursion=1&all-projects=true")
    assert secret and not any(one["class"] == "token" for group in operations.values() for one in group)
    assert there.snapshot() == before
    assert here.json("query", "far:/1.0")["config"] == {}
    # The project goes, and with it the right; another one of that name is another one.
    there.cli("delete", "-f", f"{name}-in", "--project", project)
    there.cli("project", "delete", project)
    there.cli("project", "create", project)
    assert "projects: none" in here.cli("list", "far:", check=False).stderr
    assert "restricted: true\nprojects: []" in there.out("config", "trust", "show", "guest")
    there.cli("config", "trust", "remove", "guest")
    there.cli("config", "trust", "revoke-token", "secret")
    there.cli("project", "delete", project)
    there.cli("config", "unset", "core.https_address")


def test_names_without_a_name(own_lxpyd: Lxpyd, tmp_path: pathlib.Path) -> None:
    """A certificate added by the password gets its own name; certificates of older versions are taken over."""
    daemon = own_lxpyd
    crt = _certificate(tmp_path, "older")
    der = der_of(crt.read_text())
    fingerprint = subprocess.run(["sha256sum"], input=der, capture_output=True, check=True).stdout.decode()[:64]
    daemon.kill(signal.SIGTERM)
    old = {"name": "unnamed", "type": "client", "restricted": False, "projects": [], "certificate": crt.read_text(),
           "fingerprint": fingerprint}  # fmt: skip
    (daemon.dir / "trust.json").write_text(json.dumps({fingerprint: old}))
    daemon.start()
    assert _names(daemon) == ["older@test"] and not (daemon.dir / "trust.json").exists()
    row = daemon.out("config", "trust", "list", "-f", "csv").split(",")
    assert row[:4] == ["client", "older@test", "older@test", fingerprint[:12]]
    address = _listen(daemon, 19603)
    daemon.cli("config", "set", "core.trust_password=sesame")
    daemon.cli("remote", "add", "me", address, "--accept-certificate", "--password", "sesame")
    added = next(one for one in _names(daemon) if one != "older@test")
    assert added == f"root@{socket.gethostname()}" or added.endswith(socket.gethostname())
    daemon.cli("remote", "remove", "me")


def test_killed_anywhere(own_lxpyd: Lxpyd, tmp_path: pathlib.Path) -> None:
    """kill -9 amid adding, tokens and settings: each is there whole or not at all, and a token is good once."""
    daemon = own_lxpyd
    _listen(daemon, 19604)
    crt = _certificate(tmp_path, "k")
    for n in range(10):
        token = _token(daemon, "--name", f"t{n}")
        commands: list[tuple[str, ...]] = [
            ("config", "trust", "add", str(crt), "--name", f"c{n}"), ("remote", "add", f"r{n}", token),
            ("config", "set", f"user.n={n}", f"user.m={n}"), ("config", "trust", "add", "--name", f"n{n}"),
        ]  # fmt: skip
        running = [daemon.spawn(*command) for command in commands]
        time.sleep(0.015 * n)
        daemon.kill(signal.SIGKILL)
        for process in running:
            _, err = process.communicate(timeout=20)
            assert b"Traceback" not in err, err.decode()
        daemon.start()
        names = _names(daemon)
        tokens = [one["ClientName"] for one in daemon.json("config", "trust", "list-tokens", "-f", "json")]
        assert (f"t{n}" in names) != (f"t{n}" in tokens), (names, tokens)
        config = daemon.json("query", "/1.0")["config"]
        assert config.get("user.n") == config.get("user.m") and config["core.https_address"] == "127.0.0.1:19604"
        for name in names:
            daemon.cli("config", "trust", "remove", name)
        for name in tokens:
            daemon.cli("config", "trust", "revoke-token", name)
        if f"r{n}," in daemon.out("remote", "list", "-f", "csv"):
            daemon.cli("remote", "remove", f"r{n}")
    until(lambda: daemon.cli("query", "/1.0", check=False).returncode == 0, 5, "no answer")
