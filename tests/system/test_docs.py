"""The examples of the documentation run, as they are typed there."""

import os
import pathlib
from collections.abc import Iterator

import pytest

from tests.support import docs, leftovers

PAGES = [page for page in sorted(pathlib.Path(__file__).parents[2].glob("docs/*.md")) if docs.blocks(page)]


@pytest.fixture(scope="module")
def machine() -> Iterator[docs.Machine]:
    """A machine as a reader has it after ``lxpy init --auto``; cleaned between pages."""
    machine = docs.Machine(50 + int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")))
    yield machine
    machine.close()
    leftovers.check(machine.daemon)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_page(machine: docs.Machine, page: pathlib.Path) -> None:
    try:
        machine.run(page)
    finally:
        machine.clean()


def test_what_is_not_run_says_why(capsys: pytest.CaptureFixture[str]) -> None:
    left_out = [block for page in PAGES for block in docs.blocks(page) if block.not_run or "# not run" in block.text]
    with capsys.disabled():
        for block in left_out:
            print(f"\ndocs/{block.page}:{block.line} is not run: {block.not_run}", end="")
    assert all(len(block.not_run.split()) >= 2 for block in left_out)
    run = sum(not block.not_run for page in PAGES for block in docs.blocks(page))
    assert run > 3 * len(left_out), "most of the examples have to run"
