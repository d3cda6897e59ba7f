"""Reading simplestreams and finding what a name means, without a server."""

import hashlib
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lxpy.api.errors import ApiError, BadRequest, NotFound
from lxpy.images import recipes
from lxpy.images.streams import parse_products, product_paths, resolve, safe_path, version_key
from lxpy.images.systems import host_sources

SHA = "ab" * 32


def product(
    os: str,
    release: str,
    aliases: str,
    *,
    arch: str = "amd64",
    variant: str = "default",
    number: int = 0,
    **fields: Any,
) -> dict[str, Any]:
    fingerprint = hashlib.sha256(f"{os}{release}{arch}{variant}".encode()).hexdigest()
    items = {
        "m": {"ftype": "lxd.tar.xz", "path": "m", "sha256": SHA, "size": 1, "combined_squashfs_sha256": fingerprint},
        "r": {"ftype": "squashfs", "path": "r", "sha256": SHA, "size": 2},
    }
    base = {"os": os, "release": release, "aliases": aliases, "arch": arch, "variant": variant}
    return base | {"versions": {"20260101_00:00": {"items": items}}} | fields


def images(*products: dict[str, Any]) -> list[Any]:
    keys = [f"{p['os']}:{p['release']}:{p['arch']}:{p['variant']}".lower() for p in products]
    return parse_products({"products": dict(zip(keys, products, strict=True))})


SERVER = images(
    product("Alpine", "3.9", "alpine/3.9/default,alpine/3.9"),
    product("Alpine", "3.19", "alpine/3.19/default,alpine/3.19"),
    product("Alpine", "3.20", "alpine/3.20/default,alpine/3.20"),
    product("Alpine", "3.20", "alpine/3.20/default,alpine/3.20", arch="arm64"),
    product("Alpine", "3.20", "alpine/3.20/default,alpine/3.20", arch="i386"),
    product("Alpine", "3.20", "alpine/3.20/cloud", variant="cloud"),
    product("Alpine", "edge", "alpine/edge/default,alpine/edge"),
    product("Alpine", "3.21", "alpine/3.21/default,alpine/3.21", arch="riscv64"),
    product("Debian", "bullseye", "debian/11/default,debian/11,debian/bullseye"),
    product("Debian", "trixie", "debian/trixie"),
    product("Debian", "bookworm", "debian/bookworm"),
    product("Debian", "sid", "debian/sid"),
    product("ubuntu", "jammy", "22.04,default,j,jammy,lts", version="22.04", release_title="22.04 LTS"),
    product("ubuntu", "noble", "24.04,n,noble", version="24.04"),
    product("Archlinux", "current", "archlinux/current/default,archlinux/current,archlinux"),
)


@pytest.mark.parametrize(
    ("wanted", "os", "release", "arch", "variant"),
    [
        ("alpine/3.9", "Alpine", "3.9", "x86_64", "default"),
        ("alpine", "Alpine", "3.20", "x86_64", "default"),
        ("alpine/arm64", "Alpine", "3.20", "aarch64", "default"),
        ("alpine/3.20/arm64", "Alpine", "3.20", "aarch64", "default"),
        ("alpine/3.20/i386", "Alpine", "3.20", "i686", "default"),
        ("alpine/cloud", "Alpine", "3.20", "x86_64", "cloud"),
        ("alpine/3.20/cloud/amd64", "Alpine", "3.20", "x86_64", "cloud"),
        ("alpine/edge", "Alpine", "edge", "x86_64", "default"),
        ("alpine/3.21/riscv64", "Alpine", "3.21", "riscv64", "default"),
        ("debian", "Debian", "trixie", "x86_64", "default"),
        ("debian/bullseye", "Debian", "bullseye", "x86_64", "default"),
        ("ubuntu", "ubuntu", "noble", "x86_64", "default"),
        ("ubuntu/22.04", "ubuntu", "jammy", "x86_64", "default"),
        ("", "ubuntu", "jammy", "x86_64", "default"),
        ("24.04", "ubuntu", "noble", "x86_64", "default"),
        ("archlinux", "Archlinux", "current", "x86_64", "default"),
    ],
)
def test_names(monkeypatch: pytest.MonkeyPatch, wanted: str, os: str, release: str, arch: str, variant: str) -> None:
    monkeypatch.setattr("lxpy.images.streams.native", lambda: ["x86_64", "i686"])
    found = resolve(SERVER, wanted, "here")
    assert (found.os, found.release, found.architecture, found.variant) == (os, release, arch, variant)


def test_unknown_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lxpy.images.streams.native", lambda: ["x86_64", "i686"])
    with pytest.raises(NotFound, match=r"^Image 'alpine/3\.21' of here exists only for riscv64, not for amd64$"):
        resolve(SERVER, "alpine/3.21", "here")
    with pytest.raises(NotFound, match="nearest: debian/bookworm"):
        resolve(SERVER, "debian/bokworm", "here")
    with pytest.raises(NotFound, match=r"nearest: alpine/3\.20, alpine/3\.9"):
        resolve(SERVER, "alpine/2", "here")
    with pytest.raises(NotFound, match="see `image list`"):
        resolve(SERVER, "qqqq", "here")


def test_fingerprints() -> None:
    assert resolve(SERVER, SERVER[2].fingerprint[:20], "here") == SERVER[2]


def test_both_worlds_kinds_and_versions() -> None:
    one = product("A", "1", "a/1")
    one["requirements"], one["lxd_requirements"] = {"cgroup": "v1"}, {"secureboot": "false"}
    items = one["versions"]["20260101_00:00"]["items"]
    items["m"] |= {"ftype": "incus.tar.xz", "combined_rootxz_sha256": "cd" * 32}
    items["t"] = {"ftype": "root.tar.xz", "path": "t", "sha256": SHA, "size": 3}
    one["versions"]["20250101_00:00"] = one["versions"]["20260101_00:00"]
    one["versions"]["latest"] = one["versions"]["20260101_00:00"]
    found = images(one)
    assert [(i.kind, i.serial[:4], i.newest, i.preferred) for i in found] == [
        ("squashfs", "2026", True, True), ("tar", "2026", True, False),
        ("squashfs", "2025", False, True), ("tar", "2025", False, False),
    ]  # fmt: skip
    assert found[0].requirements == {"cgroup": "v1", "secureboot": "false"}
    assert found[0].properties()["requirements.cgroup"] == "v1"


@pytest.mark.parametrize("index", [None, [], {}, {"index": []}])
def test_no_index(index: Any) -> None:
    with pytest.raises(BadRequest):
        product_paths(index)


def test_paths_stay_below() -> None:
    assert not any(map(safe_path, ["", "/etc", "../x", "a/../../b", "http://other/x"]))
    assert safe_path("streams/v1/a..b.json")
    entry = {"datatype": "image-downloads", "path": "../x.json", "products": ["a"], "format": "products:1.0"}
    assert product_paths({"index": {"a": entry, "b": entry | {"path": "ok.json"}, "c": entry | {"products": []}}}) == [
        "ok.json"
    ]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["products", "versions", "items", "arch", "aliases", "os", "20260101", "ftype", "path", "x"]
            ),
            inner,
            max_size=5,
        )
    ),
    max_leaves=30,
)


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)  # others use the machine, too
@given(JSON)
def test_any_json_is_read_or_left_out(data: Any) -> None:
    for image in parse_products({"products": data} if not isinstance(data, dict) else data):
        assert len(image.fingerprint) == 64


def test_versions_are_numbers() -> None:
    texts = ["3.9", "edge", "3.20", "v3.21", "10"]
    assert sorted(texts, key=version_key) == ["edge", "3.9", "3.20", "v3.21", "10"]


GOOD = {"name": "a/1", "kind": "busybox", "os": "A", "release": "1"}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"name": None}, "has no name"),
        ({"name": "../x"}, "is no image name"),
        ({"kind": "magic"}, "none of busybox, mmdebstrap, alpine"),
        ({"packges": []}, "unknown key 'packges'"),
        ({"release": 3.20}, "has no release"),
        ({"version": 12}, "quote numbers"),
        ({"packages": "x"}, "no list of texts"),
        ({"packages": ["--force"]}, "no package name"),
        ({"services": ["a; rm -rf /"]}, "no service name"),
        ({"files": [{"path": "etc/x"}]}, "no absolute path"),
        ({"files": [{"path": "/../x"}]}, "no absolute path"),
        ({"files": [{"path": "/x", "mode": 755}]}, "no octal text"),
        ({"files": [{"path": "/x", "text": ""}]}, "unknown key 'text'"),
        ({"templates": [{"path": "/x"}]}, "needs content"),
        ({"templates": [{"path": "/x", "content": "", "when": ["never"]}]}, "when is a list"),
        ({"architectures": ["pdp11"]}, "unknown architecture"),
        ({"source": "x"}, "unknown key 'source'"),
        ({"variants": ["cloud"]}, "variants is no mapping"),
        ({"variants": {"a b": {}}}, "needs a name"),
        ({"variants": {"cloud": {"kind": "alpine"}}}, "variant cloud has the unknown key 'kind'"),
        ({"variants": {"cloud": {"packages": ["--force"]}}}, "no package name"),
    ],
)
def test_bad_recipes(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(BadRequest, match=reason) as caught:
        recipes.parse_all(GOOD | changes, "r.yaml")
    assert str(caught.value).startswith("Recipe r.yaml")


def test_variants_go_on_with_the_lists() -> None:
    more = {"description": "other", "packages": ["b"], "files": [{"path": "/y"}]}
    data = GOOD | {"aliases": ["x"], "packages": ["a"], "files": [{"path": "/x"}], "variants": {"cloud": more}}
    plain, cloud = recipes.parse_all(data, "r.yaml")
    assert (plain.variant, plain.packages, len(plain.files)) == ("default", ("a",), 1)
    assert (cloud.name, cloud.variant, cloud.aliases) == (f"{plain.name}/cloud", "cloud", ("x/cloud",))
    assert (cloud.packages, cloud.description) == (("a", "b"), "other")
    assert [file.path for file in cloud.files] == ["/x", "/y"]
    assert plain.key() != cloud.key() and cloud.properties()["variant"] == "cloud"


def test_shipped_recipes() -> None:
    found = recipes.load_all("/nonexistent")
    assert set(found) >= {"busybox", "debian/12", "debian/13", "alpine/3.20"}
    assert found["alpine/3.20"].untested and not found["debian/12"].untested
    assert recipes.find(found, "debian").name == "debian/13"
    assert recipes.find(found, found["debian/12"].key()).name == "debian/12"
    with pytest.raises(ApiError, match=r"nearest: .*debian/12"):
        recipes.find(found, "debian/1")


def test_the_hosts_mirrors_in_both_formats(tmp_path: Any) -> None:
    etc = tmp_path
    (etc / "apt/sources.list.d").mkdir(parents=True)
    (etc / "os-release").write_text("NAME=x\nID=debian\n")
    (etc / "apt/sources.list").write_text(
        "# deb http://old.example/debian x main\n"
        "deb [arch=amd64] http://third.example/tool bookworm main\n"
        "deb http://a.example/debian/ bookworm main contrib # mine\n"
        "deb-src http://a.example/debian bookworm main\n"
        "deb http://a.example/debian-security bookworm-security main\n"
    )
    assert [tuple(source) for source in host_sources(str(etc))] == [
        ("http://a.example/debian", False), ("http://a.example/debian-security", True),
    ]  # fmt: skip
    (etc / "apt/sources.list").unlink()
    (etc / "apt/sources.list.d/debian.sources").write_text(
        "Types: deb\n# a remark\nURIs: http://b.example/debian\nSuites: trixie\n trixie-updates\nComponents: main\n\n"
        "Types: deb\nURIs: http://c.example/debian\nSuites: sid\nComponents: main\nEnabled: no\n"
    )
    assert [tuple(source) for source in host_sources(str(etc))] == [("http://b.example/debian", False)]
    (etc / "os-release").write_text("ID=ubuntu\nID_LIKE=debian\n")
    assert host_sources(str(etc)) == []
