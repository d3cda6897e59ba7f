"""Devices and forms of the app in front of a real daemon: what is done there is seen inside."""

import pathlib
import socket
from typing import Any

import pytest
from textual.widgets import Input, Static

from lxpy.tui.screens.choose import Choose
from lxpy.tui.screens.confirm import Confirm
from lxpy.tui.screens.form import Form
from lxpy.tui.screens.keys import KeysForm
from lxpy.tui.screens.launch import LaunchDialog
from lxpy.tui.tabs.devices import DevicesTab
from lxpy.tui.tabs.network import AclsTab, ForwardsTab
from tests.support.daemon import Lxpyd, until
from tests.tui.test_real_daemon import notices, opened, wait
from tests.tui.test_tabs import at


def fill(app: Any, **answers: str) -> None:
    """Writes into the fields of a form."""
    for name, text in answers.items():
        app.screen.query_one(f"#ask-{name}", Input).value = text


def devices(tab: Any) -> dict[str, str]:
    """Name and origin of what the table shows."""
    return {row.name: row.origin for row in tab.table.rows}


async def test_a_share_and_a_proxy_are_there_at_once(
    lxpyd: Lxpyd, busybox: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "note").write_text("from the host\n")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    lxpyd.sh(busybox, "mkdir -p /www && echo 'from inside' > /www/index.html && httpd -p 127.0.0.1:80 -h /www")
    async with opened(lxpyd, monkeypatch) as pilot:
        app = pilot.app
        tab = await at(pilot, busybox, DevicesTab)
        await wait(pilot, lambda: devices(tab) == {"eth0": "profile default", "root": "profile default"})
        await wait(pilot, lambda: lxpyd.addresses(busybox)[0] in str(tab.body.render()))  # eth0 is selected
        assert "On the host" in str(tab.body.render()) and "Received" in str(tab.body.render())

        await pilot.press("n")
        await wait(pilot, lambda: isinstance(app.screen, Choose))
        await pilot.press("enter")
        await wait(pilot, lambda: isinstance(app.screen, Form))
        fill(app, source=str(tmp_path / "nothing"), path="/mnt/host")
        await pilot.press("ctrl+s")
        await wait(pilot, lambda: app.screen.query_one("#form-fault").display)  # it is not there: only the daemon knows
        fill(app, source=str(tmp_path))
        await pilot.press("ctrl+s")
        await wait(pilot, lambda: app.on_main and devices(tab).get("share") == "own")
        assert lxpyd.sh(busybox, "cat /mnt/host/note; stat -c %u /mnt/host").stdout == "from the host\n0\n"

        await pilot.press("n")
        await wait(pilot, lambda: isinstance(app.screen, Choose))
        await pilot.press("down", "down", "enter")
        await wait(pilot, lambda: isinstance(app.screen, Form))
        fill(app, listen=f"tcp:127.0.0.1:{port}", connect="tcp:127.0.0.1:80")
        await pilot.press("ctrl+s")
        await wait(pilot, lambda: app.on_main and devices(tab).get("web") == "own")

        def page() -> str:
            with socket.create_connection(("127.0.0.1", port), 5) as client:
                client.sendall(b"GET / HTTP/1.0\r\n\r\n")
                return b"".join(iter(lambda: client.recv(4096), b"")).decode()

        assert "from inside" in until(page, 10, "the proxy does not answer")

        tab.table.action_to([row.name for row in tab.table.rows].index("share"))
        await pilot.press("ctrl+d")
        await wait(pilot, lambda: isinstance(app.screen, Confirm))
        await pilot.press("y")
        await wait(pilot, lambda: "share" not in devices(tab))
        assert lxpyd.sh(busybox, "ls /mnt/host").stdout == ""
        assert not any("Cannot" in notice for notice in notices(app))


async def test_a_limit_set_in_the_form_holds(lxpyd: Lxpyd, busybox: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with opened(lxpyd, monkeypatch) as pilot:
        app = pilot.app
        app.action_go(1, busybox)
        await pilot.press("e")
        await wait(pilot, lambda: isinstance(app.screen, KeysForm) and app.screen.loaded is not None)
        await pilot.press(*"limits.memory", "enter", *"48MiB")
        lxpyd.cli("config", "set", busybox, "user.other=theirs")  # somebody else, meanwhile
        await pilot.press("ctrl+s")
        await wait(pilot, lambda: isinstance(app.screen, Choose))
        await pilot.press("down", "enter")
        await wait(pilot, lambda: app.on_main)
        config = lxpyd.instance(busybox)["config"]
        assert (config["limits.memory"], config["user.other"]) == ("48MiB", "theirs")
        assert lxpyd.json("query", f"/1.0/instances/{busybox}/state")["lxpy_limits"]["memory"] == 48 << 20


async def test_a_launch_with_a_share(
    lxpyd: Lxpyd, name: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the mouse where there is something to click; and the line that is shown does the same."""
    (tmp_path / "note").write_text("shared\n")
    async with opened(lxpyd, monkeypatch) as pilot:
        app = pilot.app
        await pilot.press("n")
        await wait(pilot, lambda: isinstance(app.screen, LaunchDialog) and app.screen._profiles)
        dialog = app.screen
        await pilot.press(*"bb", "enter", *name)
        await pilot.click("#add-device")
        await wait(pilot, lambda: isinstance(app.screen, Choose))
        await pilot.click("#choose", offset=(5, 1), times=2)
        await wait(pilot, lambda: isinstance(app.screen, Form))
        fill(app, source=str(tmp_path), path="/srv")
        await wait(pilot, lambda: "owner=0" in str(app.screen.query_one("#form-line", Static).render()))
        await pilot.pause(0.2)  # the line has grown, and the button has moved
        await pilot.click("#form #yes")
        await wait(pilot, lambda: app.screen is dialog)
        words = dialog._request().words()
        await pilot.press("ctrl+s")
        await wait(pilot, lambda: name in app.model.instances and app.model.instances[name].running)
        assert lxpyd.sh(name, "cat /srv/note").stdout == "shared\n"
        other = f"{name}-x"
        lxpyd.cli(*(other if word == name else word for word in words[1:]))
        assert lxpyd.sh(other, "cat /srv/note").stdout == "shared\n"
        mine, theirs = (lxpyd.instance(one) for one in (name, other))
        assert (mine["devices"], mine["profiles"]) == (theirs["devices"], theirs["profiles"])


async def test_forwards_and_acls(lxpyd: Lxpyd, busybox: str, monkeypatch: pytest.MonkeyPatch) -> None:
    acl, listen = f"{busybox}-acl", "192.0.2.77"
    async with opened(lxpyd, monkeypatch) as pilot:
        app = pilot.app
        app.main.action_pane(5)
        await wait(pilot, lambda: any(row.name == lxpyd.bridge for row in app.main.active.rows))
        app.action_go(5, lxpyd.bridge)
        app.main.action_open_detail()

        async def to(kind: Any) -> Any:
            tab = app.main.detail.find(kind)
            app.main.detail.choose(tab)
            await wait(pilot, lambda: tab.display)
            app.main.detail.focus_inside()
            await wait(pilot, lambda: app.focused is tab.inside())
            return tab

        tab = await to(ForwardsTab)
        await pilot.press("n")
        await wait(pilot, lambda: isinstance(app.screen, Form))
        target = lxpyd.wait_address(busybox)
        fill(app, listen_address=listen, listen_port="8080", target_address="10.255.255.1", target_port="80")
        await pilot.press("ctrl+s")
        await wait(pilot, lambda: app.screen.query_one("#fault-target_address").display)
        fill(app, target_address=target)
        await pilot.press("ctrl+s")
        await wait(pilot, lambda: app.on_main and [row.port for row in tab.table.rows] == [-1, 0])
        (forward,) = lxpyd.json("network", "forward", "list", lxpyd.bridge, "-f", "json")
        assert forward["ports"][0]["target_address"] == target
        await pilot.press("g", "ctrl+d")
        await wait(pilot, lambda: isinstance(app.screen, Confirm))
        await pilot.press("y")
        await wait(pilot, lambda: tab.table.rows == [])

        tab = await to(AclsTab)
        await pilot.press("n")
        await wait(pilot, lambda: isinstance(app.screen, Form))
        fill(app, name=acl)
        await pilot.press("ctrl+s")
        await wait(pilot, lambda: app.on_main and acl in [row.name for row in tab.table.rows])
        tab.table.action_to([row.name for row in tab.table.rows].index(acl))
        await pilot.press("a")
        await wait(pilot, lambda: isinstance(app.screen, Form))
        app.screen.query_one("#ask-protocol").value = "icmp4"
        await pilot.press("ctrl+s")
        await wait(pilot, lambda: app.on_main and any(row.raw["ingress"] for row in tab.table.rows if row.name == acl))
        assert lxpyd.json("query", f"/1.0/network-acls/{acl}")["ingress"][0]["protocol"] == "icmp4"
        await pilot.press("ctrl+d")
        await wait(pilot, lambda: isinstance(app.screen, Confirm))
        await pilot.press("y")
        await wait(pilot, lambda: acl not in [row.name for row in tab.table.rows])
        assert not any("Cannot" in notice for notice in notices(app))
