"""admin: what LXD's `lxd` command and incus' `admin` have."""

from __future__ import annotations

from lxpy.cli.args import Command
from lxpy.cli.recover import RECOVER
from lxpy.cli.setup import ADMIN_INIT

COMMANDS: dict[str, Command | dict[str, Command]] = {"admin": {"init": ADMIN_INIT, "recover": RECOVER}}
