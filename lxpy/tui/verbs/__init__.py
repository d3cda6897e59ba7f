"""What can be done to objects, a module a kind: dialogs and the requests behind them.

`VERBS` names the module and function of each verb, imported when it is used first. A function is given the app and the
rows it is to act on. Starting, stopping and deleting instances and images is in `actions.py`.
"""

VERBS: dict[str, tuple[str, str]] = {
    "edit": ("objects", "edit"),
    "delete-object": ("objects", "delete"),
    "rename-object": ("objects", "rename"),
    "create-pool": ("create", "pool"),
    "create-network": ("create", "network"),
    "create-profile": ("create", "profile"),
    "add-remote": ("remotes", "add"),
    "remove-remote": ("remotes", "remove"),
    "rename-remote": ("remotes", "rename"),
    "remote-url": ("remotes", "set_url"),
    "default-remote": ("remotes", "default"),
    "switch-remote": ("remotes", "switch"),
    "test-remote": ("remotes", "test"),
    "aliases": ("images", "aliases"),
    "image-options": ("images", "options"),
    "refresh-image": ("images", "refresh"),
    "export-image": ("images", "export"),
    "publish-one": ("images", "publish"),
    "launch-listed": ("catalogue", "launch"),
    "download": ("catalogue", "download"),
    "cancel-download": ("catalogue", "cancel"),
    "cancel": ("objects", "cancel"),
    "acknowledge": ("objects", "acknowledge"),
    "setup": ("places", "set_up"),
    **{
        f"{verb}-volume": ("volumes", verb)
        for verb in ("create", "attach", "detach", "snapshot", "restore", "resize", "copy", "rename", "edit", "delete")
    },
    **{f"{verb}-forward": ("networks", f"{verb}_forward") for verb in ("create", "edit", "delete")},
    "add-port": ("networks", "add_port"),
    **{f"{verb}-acl": ("networks", f"{verb}_acl") for verb in ("create", "use", "edit", "delete")},
    "add-rule": ("networks", "add_rule"),
    "add-device": ("devices", "add"),
    "edit-device": ("devices", "edit"),
    "mask-device": ("devices", "mask"),
    "remove-device": ("devices", "remove"),
    "snapshot": ("instances", "snapshot"),
    "restore": ("instances", "restore"),
    "copy-instance": ("instances", "copy"),
    "rename": ("instances", "rename"),
    "move": ("instances", "move"),
    "publish": ("transfer", "publish"),
    "export": ("transfer", "export"),
    "import": ("transfer", "import_backup"),
    "push": ("transfer", "push"),
    "pull": ("transfer", "pull"),
    "rebuild": ("change", "rebuild"),
    "configure": ("change", "configure"),
    "profiles": ("change", "profiles"),
    "share": ("change", "share"),
    "unshare": ("change", "unshare"),
    "execute": ("change", "execute"),
    "doctor": ("server", "doctor"),
    "recover": ("server", "recover"),
    "apply": ("server", "apply"),
    "results": ("server", "results"),
}
# Verbs without a key of their own, for the palette: what they are called there, and what they do. "*" stands for the
# marked or selected instances; without it they are about none.
PALETTE: dict[str, tuple[str, str]] = {
    "import": ("Import a backup", "An instance of a file that lxpy, LXD or Incus has exported"),
    "share": ("Share a directory with *", "A directory of the server's machine inside"),
    "unshare": ("Stop sharing a directory with *", "It is no longer there inside"),
    "doctor": ("Look at this machine", "What is there, what is missing, what to do (lxpy doctor)"),
    "recover": ("Recover instances and volumes", "What lies on storage pools and is not known"),
    "apply": ("Apply a file", "Bring instances, volumes, networks and profiles to what it describes"),
    "setup": ("Set up this server", "The questions of lxpy init"),
}
