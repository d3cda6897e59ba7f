"""Where tests run (a namespace of their own), the daemon they use, and the search for what they left behind."""

import contextlib
import os
import pathlib
import sys
from collections.abc import Iterator

import pytest

from tests.support import leftovers, namespace
from tests.support.daemon import Lxpyd


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    """Starts the whole run again inside a namespace, unless it is inside already."""
    if namespace.inside() or hasattr(config, "workerinput") or config.option.collectonly:
        return
    if os.geteuid() != 0:
        raise pytest.UsageError("The tests drive the real kernel and need root: run `sudo ./tests/run`")
    capture = config.pluginmanager.getplugin("capturemanager")
    if capture is not None:
        capture.stop_global_capturing()
    words = str(config.option.markexpr).split()
    apart = "vm" not in words or "not" in words  # the virtual machine's packages come by the host's network
    command = [sys.executable, "-m", "pytest", *config.invocation_params.args]
    pytest.exit_status = namespace.enter(command, network=apart)
    sys.stdout.flush()
    os._exit(pytest.exit_status)


def _worker() -> int:
    """0, 1 ... for the xdist workers; they differ in directory, bridge, subnet and id maps."""
    return int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))


@contextlib.contextmanager
def _running(letter: str, number: int, *, initialised: bool = True) -> Iterator[Lxpyd]:
    """A daemon, destroyed afterwards. What it left behind fails the test, but not the tests of the next daemon."""
    daemon = Lxpyd(letter, number)
    try:
        daemon.start()
        try:
            if initialised:
                daemon.initialise()
            yield daemon
        finally:
            daemon.destroy()
        leftovers.check(daemon)
    except BaseException:
        leftovers.clear(daemon)
        raise


@pytest.fixture(scope="session")
def lxpyd() -> Iterator[Lxpyd]:
    """A running daemon, initialised: pools `default` (overlay), `plain` (dir); a bridge; the image `bb` (busybox)."""
    with _running("s", _worker()) as daemon:
        yield daemon


@pytest.fixture(scope="module")
def apart_lxpyd() -> Iterator[Lxpyd]:
    """A daemon of one module, in a network of its own, as is every test that asks for it; not together with `lxpyd`."""
    with namespace.own_network(), _running("n", _worker() + 50) as daemon:
        yield daemon


@pytest.fixture
def own_lxpyd() -> Iterator[Lxpyd]:
    """A daemon of one test, for those that kill, fill or reconfigure it. As `lxpyd` otherwise."""
    with _running("o", _worker() + 100) as daemon:
        yield daemon


@pytest.fixture
def own_network() -> Iterator[None]:
    """A network of the test's own: name it before `own_lxpyd`, so that the daemon lives there too."""
    with namespace.own_network():
        yield


@pytest.fixture
def bare_lxpyd() -> Iterator[Lxpyd]:
    """A daemon that nothing has initialised."""
    with _running("b", _worker() + 200, initialised=False) as daemon:
        yield daemon


@pytest.fixture
def name(lxpyd: Lxpyd, request: pytest.FixtureRequest) -> Iterator[str]:
    """A free instance name; whatever has that name, or begins with it and a dash, is deleted afterwards."""
    lxpyd.counter += 1
    chosen = f"t{lxpyd.counter}"
    yield chosen
    lxpyd.sweep(chosen)


@pytest.fixture
def busybox(lxpyd: Lxpyd, name: str) -> str:
    """The name of a running busybox container."""
    lxpyd.cli("launch", "bb", name)
    return name


@pytest.fixture(scope="session")
def debian_image(lxpyd: Lxpyd) -> str:
    """The alias of the Debian 12 image in `lxpyd`."""
    lxpyd.import_image("debian/12", "deb")
    return "deb"


@pytest.fixture(scope="session")
def checkout() -> pathlib.Path:
    return pathlib.Path(__file__).parents[1]
