"""The checks that every change must pass: format, rules, types, layers, size of modules."""

import pathlib
import subprocess
import sys

import pytest

BIN = pathlib.Path(sys.executable).parent


def _run(checkout: pathlib.Path, *command: str) -> None:
    result = subprocess.run(command, cwd=checkout, capture_output=True, text=True, check=False)
    assert result.returncode == 0, f"{' '.join(command)}\n{result.stdout[-6000:]}{result.stderr[-2000:]}"


def test_format(checkout: pathlib.Path) -> None:
    _run(checkout, str(BIN / "ruff"), "format", "--check", "--quiet", ".")


def test_rules(checkout: pathlib.Path) -> None:
    _run(checkout, str(BIN / "ruff"), "check", "--quiet", ".")


@pytest.mark.timeout(600)
def test_types(checkout: pathlib.Path) -> None:
    _run(checkout, str(BIN / "mypy"))


def test_layers(checkout: pathlib.Path) -> None:
    _run(checkout, str(BIN / "lint-imports"))


def test_shell_scripts_parse(checkout: pathlib.Path) -> None:
    for script in ("install.sh", ".ci/run", "tests/run", "packaging/host.sh"):
        _run(checkout, "bash", "-n", script)


def test_no_module_has_outgrown_its_room(checkout: pathlib.Path) -> None:
    """A module over 600 lines wants splitting; 650 is where the test insists."""
    long = {
        str(path.relative_to(checkout)): lines
        for path in checkout.glob("lxpy/**/*.py")
        if (lines := len(path.read_text().splitlines())) > 650
    }
    assert not long


def test_nothing_heavy_is_imported_on_the_command_line_path() -> None:
    """`exec` and `list` pay for every import; a bare `import lxpy.cli.main` must stay lean."""
    script = "import sys, lxpy.cli.main; print(*sys.modules)"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    modules = set(result.stdout.split())
    heavy = {"asyncio", "aiohttp", "textual", "rich", "yaml", "http.client", "urllib.request", "subprocess", "ssl"}
    assert not modules & heavy
