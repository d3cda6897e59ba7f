"""The stock client of LXD 5.0.2 against our socket."""

import os
import pathlib
import subprocess
from collections.abc import Callable

import pytest

from tests.support.daemon import Lxpyd

Lxc = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def lxc(lxpyd: Lxpyd, tmp_path: pathlib.Path) -> Lxc:
    """Runs `lxc ARGS`; `ok=False` lets it fail."""
    environment = {**os.environ, "LXD_DIR": str(lxpyd.dir), "LXD_CONF": str(tmp_path), "LC_ALL": "C.UTF-8"}

    def run(*args: str, ok: bool = True, input: str = "") -> subprocess.CompletedProcess[str]:
        result = subprocess.run(
            ["lxc", *args], env=environment, input=input, capture_output=True, text=True, timeout=60, check=False
        )
        assert not ok or result.returncode == 0, f"lxc {' '.join(args)}: {result.stdout}{result.stderr}"
        return result

    return run
