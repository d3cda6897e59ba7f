"""Every verb of the command line: what the app has for it, or why it has nothing. A verb in neither list fails a test.

What the app has is named by the id of its binding (`lxpy tui --keys`), or as ``palette NAME`` by its verb.
"""

_EDIT = {
    "config": "instance.edit", "image": "image.edit", "network": "network.edit", "profile": "profile.edit",
    "storage": "pool.edit",
}  # fmt: skip

COVERED: dict[str, str] = {
    "admin init": "palette setup", "admin recover": "palette recover", "apply": "palette apply",
    "config edit": "instance.edit", "config get": "detail.next", "config set": "instance.set",
    "config show": "detail.next", "config unset": "instance.set", "console": "instance.console",
    "copy": "instance.copy-instance", "delete": "instance.delete", "doctor": "palette doctor",
    "exec": "instance.execute", "export": "instance.export", "file create": "files.mkdir",
    "file delete": "files.delete", "file edit": "files.edit", "file pull": "instance.pull",
    "file push": "instance.push", "image delete": "image.delete", "image edit": "image.edit",
    "image get-property": "image.edit", "image info": "main.pane-2", "image list": "main.pane-2",
    "image set-property": "image.edit", "image show": "image.edit", "image unset-property": "image.edit",
    "import": "palette import", "info": "instance.describe", "init": "instance.launch", "launch": "instance.launch",
    "list": "main.pane-1", "move": "instance.move", "network create": "network.create",
    "network delete": "network.delete", "network info": "main.pane-5", "network list": "main.pane-5",
    "network list-leases": "main.pane-5", "operation delete": "operation.cancel", "operation list": "app.operations",
    "operation show": "app.operations", "pause": "instance.pause", "profile assign": "instance.profiles",
    "profile add": "instance.profiles", "profile remove": "instance.profiles", "profile create": "profile.create",
    "profile delete": "profile.delete", "profile list": "main.pane-6", "profile rename": "profile.rename",
    "project list": "app.project", "project switch": "app.project", "project info": "app.project",
    **{f"project {verb}": f"project.{verb}" for verb in ("create", "delete", "edit", "rename")},
    **{f"project {verb}": "project.edit" for verb in ("get", "set", "show", "unset")}, "publish": "instance.publish",
    "rebuild": "instance.rebuild", "recover": "palette recover", "remote add": "remote.add",
    "remote list": "main.pane-3", "remote remove": "remote.remove", "remote get-default": "main.pane-3",
    "remote switch": "remote.default", "rename": "instance.rename", "restart": "instance.restart",
    "restore": "instance.restore", "resume": "instance.pause", "share": "palette share", "shell": "instance.shell",
    "snapshot": "instance.snapshot", "start": "instance.start", "stop": "instance.stop",
    "storage create": "pool.create", "storage delete": "pool.delete", "storage info": "main.pane-4",
    "storage list": "main.pane-4", "top": "instance.sort-cpu", "unshare": "palette unshare",
    "warning acknowledge": "warning.acknowledge", "warning delete": "warning.delete", "warning list": "main.pane-8",
    "warning show": "main.pane-8",
    **{f"{kind} {verb}": key for kind, key in _EDIT.items() if kind not in ("config", "image")
       for verb in ("edit", "get", "set", "show", "unset")},
    **{f"config device {verb}": "instance.edit"
       for verb in ("add", "get", "list", "remove", "set", "show", "unset", "override")},
    **{f"profile device {verb}": "profile.edit" for verb in ("add", "get", "list", "remove", "set", "show", "unset")},
    **{f"image alias {verb}": "image.aliases" for verb in ("create", "delete", "list", "rename")},
    "image copy": "catalogue.download", "image export": "image.export", "image import": "image.import",
    "image refresh": "image.refresh",
    "remote rename": "remote.rename", "remote set-url": "remote.url",
    "network acl create": "acl.create", "network acl delete": "acl.delete", "network acl list": "main.pane-5",
    "network acl rule add": "acl.rule", "network acl rule remove": "acl.edit",
    **{f"network acl {verb}": "acl.edit" for verb in ("edit", "get", "set", "show", "unset")},
    "network acl rename": "acl.rename", "network acl show-log": "acl.log", "network rename": "network.rename",
    "profile copy": "profile.copy-profile",
    "network forward create": "forward.create", "network forward delete": "forward.delete",
    "network forward list": "main.pane-5", "network forward port add": "forward.port",
    "network forward port remove": "forward.delete",
    **{f"network forward {verb}": "forward.edit" for verb in ("edit", "get", "set", "show", "unset")},
    **{f"storage volume {verb}": f"volume.{verb}"
       for verb in ("attach", "attach-profile", "copy", "create", "delete", "detach", "detach-profile", "edit",
                    "export", "import", "move", "rename", "restore", "snapshot")},
    **{f"storage volume {verb}": "volume.edit" for verb in ("get", "set", "show", "unset")},
    **{f"storage volume {verb}": "main.pane-4" for verb in ("info", "list")},
    **{f"network {verb}": "instance.edit" for verb in ("attach", "detach")},
    **{f"network {verb}": "profile.edit" for verb in ("attach-profile", "detach-profile")},
}  # fmt: skip

_TEMPLATES = "It is for whoever makes images: files of an image's own, edited where the image is made"
_TRUST = "Who may use the server is decided on the server itself, where a token is printed once and handed on"
_SCRIPT = "It is for scripts: its output is read by a program"

LEFT_OUT: dict[str, str] = {
    **{f"config metadata {verb}": _TEMPLATES for verb in ("edit", "show")},
    **{f"config template {verb}": _TEMPLATES for verb in ("create", "delete", "edit", "list", "show")},
    **{f"config trust {verb}": _TRUST
       for verb in ("add", "edit", "list", "list-tokens", "remove", "rename", "revoke-token", "show")},
    "create": "An instance that is launched can be stopped; one that is never to run is made by a script",
    "file mount": "It lasts as long as its command: a terminal of its own is the place for it",
    "image build": "It writes for minutes what a builder wants to read",
    "image serve": "It lasts as long as its command: a terminal of its own is the place for it",
    "monitor": "The app itself is fed by these events; raw they are for programs",
    "query": _SCRIPT,
    "tui": "It is the app",
    "version": "The header and lxpy version say it",
}  # fmt: skip
