"""The launch dialog: image with type-ahead, name, profiles; shows the command line that does the same."""

import shlex
import textwrap
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.suggester import SuggestFromList
from textual.widgets import Button, Input, Static

from lxpy.api.errors import ApiError
from lxpy.api.values import instance_name
from lxpy.tui.devicerows import summary
from lxpy.tui.gateway import RemoteInfo
from lxpy.tui.model import Changed, Model
from lxpy.tui.rows import ImageRow, size
from lxpy.tui.screens.choose import Choice, Choose
from lxpy.tui.screens.outlived import Outlived
from lxpy.tui.widgets.field import Field
from lxpy.tui.widgets.table import Column, Table

if TYPE_CHECKING:
    from lxpy.tui.app import LxpyApp


class LaunchRequest(NamedTuple):
    """What to launch. `remote` is None for an image stored here."""

    image: str
    alias: str
    remote: RemoteInfo | None
    fingerprint: bool
    name: str
    profiles: list[str]
    pool: str = ""
    network: str = ""
    config: Mapping[str, str] = {}
    devices: Mapping[str, Mapping[str, str]] = {}
    inherited: Mapping[str, Mapping[str, str]] = {}  # devices of its profiles: one of the same name keeps other keys

    def body(self) -> dict[str, Any]:
        """The body of ``POST /1.0/instances``."""
        source: dict[str, Any] = {"type": "image", "fingerprint" if self.fingerprint else "alias": self.alias}
        if self.remote is not None:
            source |= {"server": self.remote.url, "protocol": self.remote.protocol, "mode": "pull"}
        devices: dict[str, dict[str, str]] = {}
        if self.pool:
            devices["root"] = {"type": "disk", "path": "/", "pool": self.pool}
        if self.network:
            devices["eth0"] = {"type": "nic", "name": "eth0", "network": self.network}
        for name, given in self.devices.items():
            devices[name] = {**(devices.get(name) or self.inherited.get(name) or {}), **given}
        return {
            "name": self.name, "type": "container", "source": source, "profiles": self.profiles,
            "config": dict(self.config), "devices": devices,
        }  # fmt: skip

    def words(self) -> list[str]:
        """The command line that does the same."""
        words = ["lxpy", "launch", self.image, *([self.name] if self.name else [])]
        if not self.profiles:
            words.append("--no-profiles")
        elif self.profiles != ["default"]:
            words += [word for p in self.profiles for word in ("-p", p)]
        words += ["-s", self.pool] if self.pool else []
        words += ["-n", self.network] if self.network else []
        words += [word for key, value in self.config.items() for word in ("-c", f"{key}={value}")]
        return words + [word for name, given in self.devices.items() for word in ("-d", option(name, given))]


def option(name: str, device: Mapping[str, str]) -> str:
    """The argument of ``-d`` that gives a device."""
    return ",".join([name, *(f"{key}={value}" for key, value in device.items())])


class Suggestion:
    """A line of the type-ahead list: an image, or a remote to look into (`image` ends with a colon)."""

    __slots__ = ("about", "image", "key", "note")

    def __init__(self, image: str, about: str, note: str = "") -> None:
        self.key = self.image = image
        self.about, self.note = about, note


class LaunchDialog(Outlived, ModalScreen[None]):
    """See the module's text.

    Args:
        image: what the image field holds at first.
        submit: asks the daemon for it; what it refuses is shown, and everything typed stays.
    """

    BINDINGS = [
        Binding("escape", "dismiss", "Cancel", id="launch.cancel"),
        Binding("ctrl+s", "launch", "Launch", id="launch.go"),
        Binding("ctrl+o", "add_device", "Add a device", key_display="^o", id="launch.device", priority=True),
        Binding("ctrl+y", "copy_line", "Copy the command line", id="launch.copy", priority=True),
        Binding("down", "list(1)", "Next image", show=False, id="launch.next", priority=True),
        Binding("up", "list(-1)", "Previous image", show=False, id="launch.previous", priority=True),
    ]

    def __init__(
        self, model: Model, submit: Callable[[LaunchRequest], Awaitable[object]], image: str = "", **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.model = model
        self._submit = submit
        self._first = image
        self._typed: str | None = None  # what the suggestions are for
        self._busy = False
        self._refused: LaunchRequest | None = None  # the reason stands there until something else is asked for
        self._catalogues: dict[str, list[ImageRow] | str] = {}  # a string: still loading, or why there is none
        self._profiles: dict[str, dict[str, dict[str, str]]] = {}  # name to its devices
        self._devices: dict[str, dict[str, str]] = {}

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog", id="launch") as box:
            box.border_title = "Launch an instance"
            box.border_subtitle = "↑↓ image · tab next · ^o device · ^s launch · ^y copy line · esc"
            with Horizontal(classes="field"):
                yield Static("Image", classes="label")
                hint = "type to search: debian, builtin:busybox, images:alpine"
                yield Field(self, self._first, placeholder=hint, id="image")
            yield Table(
                [
                    Column("image", "", lambda r, w: ((r.image, "strong"),), None, 14, 36),
                    Column("about", "", lambda r, w: ((r.about, "dim"),), None, 10, 60, 1, 5),
                    Column("note", "", lambda r, w: ((r.note, "info"),), None, 6, 14, 0, 4, True),
                ],
                header=False, id="suggestions",
            )  # fmt: skip
            with Horizontal(classes="field"):
                yield Static("Name", classes="label")
                yield Field(self, placeholder="left empty: the daemon invents one", id="name")
            with Horizontal(classes="field"):
                yield Static("Profiles", classes="label")
                yield Field(self, "default", placeholder="none", id="profiles")
            with Horizontal(classes="field"):
                yield Static("Pool", classes="label")
                yield Field(self, placeholder="the profile's", id="pool")
                yield Static("Network", classes="label second")
                yield Field(self, placeholder="the profile's", id="network")
            with Horizontal(classes="field"):
                yield Static("CPUs", classes="label")
                yield Field(self, placeholder="all", id="cpus")
                yield Static("Memory", classes="label second")
                yield Field(self, placeholder="no limit, or 512MiB, 2GiB", id="memory")
            with Horizontal(classes="field"):
                yield Static("More", classes="label")
                yield Field(self, placeholder="key=value …, such as boot.autostart=true", id="more")
            with Horizontal(classes="field"):
                yield Static("Devices", classes="label")
                yield Static("the profile's", id="launch-devices", markup=False)
                yield Button("Take away", id="take-device", compact=True)
                yield Button("Add", id="add-device", compact=True)
            yield Static(id="launch-note", classes="note")
            yield Static(id="launch-line")
            with Horizontal(classes="buttons"):
                yield Button("Cancel", id="no", compact=True)
                yield Button("Launch", id="yes", variant="primary", compact=True)

    def on_mount(self) -> None:
        self.query_one("#take-device").display = False
        self.query_one(Table).can_focus = False
        self.query_one("#image", Input).focus()
        self._load("builtin")
        self.app.run_worker(self._load_names(), group="dialog", exit_on_error=False)
        self._suggest()
        self._line()

    # Suggestions

    def _remote(self, name: str) -> RemoteInfo | None:
        return next((r for r in self.model.remotes if r.name == name), None)

    def _load(self, name: str) -> None:
        remote = self._remote(name)
        if remote is None or name in self._catalogues:
            return
        self._catalogues[name] = f"reading the catalogue of {name} …"

        async def work() -> None:
            found = await self.model.catalogues.read(remote, again=True)
            rows: list[ImageRow] = list(found.rows or ())
            self._catalogues[name] = found.fault or rows
            if self.is_mounted:
                self._suggest()
                self._line()

        self.app.run_worker(work(), group="dialog", exit_on_error=False)

    async def _load_names(self) -> None:
        """Profiles, pools and networks that there are: for completion, and for a word on what is misspelt."""
        for ident, kind in (("profiles", "profiles"), ("pool", "storage-pools"), ("network", "networks")):
            try:
                found = await self.model.gateway.call(lambda c, kind=kind: c.get(f"/1.0/{kind}", recursion="1"))  # type: ignore[misc]
            except Exception:
                continue  # the daemon judges the names at launch
            if ident == "profiles":
                self._profiles = {profile["name"]: profile.get("devices") or {} for profile in found}
            if self.is_mounted:
                self.query_one(f"#{ident}", Input).suggester = SuggestFromList([one["name"] for one in found])
        if self.is_mounted:
            self._line()

    def _suggest(self) -> None:
        typed = self.query_one("#image", Input).value.strip().lower()
        table = self.query_one(Table)
        if typed != self._typed:  # another search: its best match is on top
            self._typed, table.cursor, table.settled = typed, 0, False
        prefix, colon, rest = typed.partition(":")
        found: list[Suggestion] = []
        if colon:
            self._load(prefix)
            catalogue = self._catalogues.get(prefix, [])
            found = _images(catalogue, rest) if isinstance(catalogue, list) else []
        else:
            if len(typed) > 1:
                self._load("images")
            found = _images(self.model.images, typed)
            builtin = self._catalogues.get("builtin")
            if isinstance(builtin, list):
                found += _images(builtin, typed)
            for name, catalogue in self._catalogues.items():
                if name != "builtin" and isinstance(catalogue, list) and typed:
                    found += _images(catalogue, typed)
            found += [
                Suggestion(f"{r.name}:", f"browse the images of {r.url}", "remote")
                for r in self.model.remotes
                if r.protocol == "simplestreams" and (not typed or typed in r.name)
            ]
        away = [
            text for name, text in self._catalogues.items() if isinstance(text, str) and (not colon or name == prefix)
        ]
        fold = textwrap.wrap(away[0] if away else "No image matches; what you typed is tried as it is", 66)
        table.empty = [((line, "dim"),) for line in fold]
        table.show(found[:500])

    def changed(self, message: Changed) -> None:
        if "images" in message.parts:
            self._suggest()
            self._line()

    def action_list(self, by: int) -> None:
        self._suggest()  # the last key's change may not have been seen yet
        self.query_one(Table).action_move(by)
        self._line()

    def on_table_highlighted(self) -> None:
        self._line()

    def on_table_chosen(self, event: Table.Chosen) -> None:
        self._take(event.row)

    def on_click(self, event: Any) -> None:
        if event.widget is self.query_one(Table) and self.query_one(Table).current is not None:
            self._take(self.query_one(Table).current)

    def _take(self, row: Any) -> None:
        field = self.query_one("#image", Input)
        field.value = row.image
        field.cursor_position = len(row.image)
        if not row.image.endswith(":"):
            self.set_focus(self.query_one("#name", Input))

    # Fields

    def on_input_changed(self, event: Input.Changed) -> None:
        if event.input.id == "image":
            self._suggest()
        self._line()

    def entered(self, field: Input) -> None:
        """Enter in `field`: takes what it says and goes on to the next; the last one launches."""
        if field.id == "image":
            self._suggest()
            row = self.query_one(Table).current
            if row is not None:
                self._take(row)
            elif field.value.strip():
                self.set_focus(self.query_one("#name", Input))
        elif field.id == "name":
            self.set_focus(self.query_one("#profiles", Input))
        else:  # the rest is for those who go there by tab
            self.action_launch()

    def on_button_pressed(self, event: Button.Pressed) -> None:
        if event.button.id == "yes":
            self.action_launch()
        elif event.button.id == "add-device":
            self.action_add_device()
        elif event.button.id == "take-device":
            self._take_device()
        else:
            self.dismiss()

    # Devices

    def action_add_device(self) -> None:
        """Asks about a device that the new instance is to have."""
        from lxpy.tui.verbs.devices import ask

        async def submit(name: str, device: dict[str, str]) -> None:
            for key in (key for key, value in device.items() if "=" in value.partition(",")[2]):
                raise ApiError(f"{key}: a comma with an equals sign behind it cannot be written in a command line")
            self._devices[name] = device
            self._show_devices()

        try:
            request = self._request()
            expanded = {**request.inherited, **request.body()["devices"]}
            line = shlex.join(request.words())
        except (ApiError, ValueError):  # the rest is not written yet
            expanded, line = dict(self._devices), "lxpy launch …"
        whole = expanded if any(device.get("path") == "/" for device in expanded.values()) else None
        ask(cast("LxpyApp", self.app), "Device of the new instance", self._devices, whole, submit,
            lambda name, device: f"{line} -d {shlex.quote(option(name, device))}")  # fmt: skip

    def _take_device(self) -> None:
        def chosen(name: str | None) -> None:
            if name:
                del self._devices[name]
                self._show_devices()

        choices = [Choice(name, summary(device) or device.get("type", "")) for name, device in self._devices.items()]
        self.app.push_screen(Choose("Take away which device?", choices, by_label=True), chosen)

    def _show_devices(self) -> None:
        shown = [f"{name}: {summary(device)}" for name, device in self._devices.items()]
        self.query_one("#launch-devices", Static).update("; ".join(shown) or "the profile's")
        self.query_one("#take-device").display = bool(shown)
        self._line()

    def _image(self) -> str:
        typed = self.query_one("#image", Input).value.strip()
        rows = self.query_one(Table).rows
        if any(row.image == typed for row in rows):
            return typed
        row = self.query_one(Table).current
        # While nothing else is typed than a part of a name, the highlighted line is what will be launched.
        return row.image if row is not None and not row.image.endswith(":") else typed

    def _request(self) -> LaunchRequest:
        """What the fields say.

        Raises:
            ApiError: what is missing or wrong.
        """
        image = self._image()
        if not image or image.endswith(":"):
            raise ApiError("Choose an image")
        prefix, colon, alias = image.partition(":")
        remote = None
        if colon and prefix != "local":
            remote = self._remote(prefix)
            if remote is None:
                raise ApiError(f"There is no remote {prefix!r}: add it with `lxpy remote add`")
        elif not colon:
            alias = image
        name = self.query_one("#name", Input).value.strip()
        if name:
            instance_name(name)
            if name in self.model.instances:
                raise ApiError(f"There is an instance {name!r} already")
        profiles = [p for p in self.query_one("#profiles", Input).value.replace(",", " ").split() if p]
        unknown = [p for p in profiles if self._profiles and p not in self._profiles]
        if unknown:
            raise ApiError(f"There is no profile {unknown[0]!r} (there are: {', '.join(self._profiles)})")
        config: dict[str, str] = {}
        for field, key in (("#cpus", "limits.cpu"), ("#memory", "limits.memory")):
            if value := self.query_one(field, Input).value.strip():
                config[key] = value
        for word in shlex.split(self.query_one("#more", Input).value, posix=True):
            key, equals, value = word.partition("=")
            if not key or not equals:
                raise ApiError(f"{word!r} is not key=value")
            config[key] = value
        stored = remote is None and any(i.fingerprint.startswith(alias) and not i.aliases for i in self.model.images)
        pool, network = (self.query_one(field, Input).value.strip() for field in ("#pool", "#network"))
        inherited: dict[str, dict[str, str]] = {}
        for profile in profiles:
            inherited |= self._profiles.get(profile, {})
        return LaunchRequest(
            image, alias, remote, stored, name, profiles, pool, network, config, dict(self._devices), inherited
        )

    def _line(self) -> None:
        if not self.is_mounted:
            return
        line = self.query_one("#launch-line", Static)
        try:
            request = self._request()
        except (ApiError, ValueError) as error:
            line.update(Content.assemble(("$ ", "$faint"), ("lxpy launch …", "$faint")))
            self._tell(str(error), "$warning")
            return
        if not self._busy and request != self._refused:  # a catalogue that comes in late takes no reason away
            self._tell("", "")
        line.update(Content.assemble(("$ ", "$faint"), (shlex.join(request.words()), "bold $accent")))

    def action_copy_line(self) -> None:
        """The command line that does the same, to the clipboard."""
        try:
            text = shlex.join(self._request().words())
        except (ApiError, ValueError) as error:
            self.notify(str(error), title="Not yet", severity="warning", markup=False)
            return
        self.app.copy_to_clipboard(text)
        self.notify(text, title="Copied", timeout=2, markup=False)

    def action_launch(self) -> None:
        if self._busy:
            return
        self._suggest()  # the last key's change may not have been seen yet
        try:
            request = self._request()
        except (ApiError, ValueError) as error:  # a quotation without its end
            self._tell(str(error), "bold $error")
            self.app.bell()
            return
        self._busy = True
        self._tell("asking the daemon …", "$info")
        self.app.run_worker(self._ask_for(request), group="verbs", exit_on_error=False)

    async def _ask_for(self, request: LaunchRequest) -> None:
        try:
            await self._submit(request)
        except Exception as error:
            self._refused = request
            what = request.name or request.image
            self.fail(error, "Cannot launch", what, lambda text: self._tell(text, "bold $error"))
        else:
            if self.open:
                self.dismiss()
        finally:
            self._busy = False

    def _tell(self, text: str, tone: str) -> None:
        self.query_one("#launch-note", Static).update(Content.assemble((text, tone)))


def _images(rows: list[ImageRow], typed: str) -> list[Suggestion]:
    words = typed.lower().split()
    found: dict[str, Suggestion] = {}
    first: list[str] = []  # whose names begin with it
    for row in rows:
        aliases = sorted(row.aliases, key=lambda a: (len(a), a)) or [row.fingerprint[:12]]
        about = row.description
        hits = [a for a in aliases if all(w in a.lower() or w in about.lower() for w in words)]
        if hits:
            exact = next((a for a in hits if a.lower() == typed), hits[0])
            image = f"{row.remote}:{exact}" if row.remote else exact
            found.setdefault(image, Suggestion(image, about, size(row.size) if row.size else row.remote))
            if exact.lower().startswith(typed):
                first.append(image)
    return [found[image] for image in dict.fromkeys((*first, *found))]
