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
    "cancel": ("objects", "cancel"),
    "acknowledge": ("objects", "acknowledge"),
    "setup": ("places", "set_up"),
    "snapshot": ("instances", "snapshot"),
    "copy-instance": ("instances", "copy"),
    "rename": ("instances", "rename"),
    "publish": ("instances", "publish"),
    "export": ("instances", "export"),
}
