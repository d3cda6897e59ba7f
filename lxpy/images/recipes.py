"""Recipes: what the built-in remote offers, as YAML files. ``docs/recipes.md`` tells the schema to their writers."""

import glob
import hashlib
import json
import os
import re
import sys
from dataclasses import asdict, dataclass, field
from typing import Any

from lxpy.api.errors import BadRequest
from lxpy.images.architectures import debian_name, kernel_name, native
from lxpy.images.metadata import METADATA_LIMIT
from lxpy.images.streams import FileRef, StreamImage, resolve

KINDS = ("busybox", "mmdebstrap", "alpine")
_NAME = re.compile(r"[a-z0-9][a-z0-9.+-]*(?:/[a-z0-9][a-z0-9.+-]*)*\Z")
_OF_VARIANTS = {"description", "packages", "services", "disable", "files", "templates"}
# Part of every recipe's key: raise it when the builder itself makes something else of the same recipe.
BUILDER_VERSION = 2


@dataclass(frozen=True)
class RecipeFile:
    """A file, directory (content None, no link) or link put into the tree, or a path taken out of it."""

    path: str
    content: str | None = None
    link: str | None = None
    mode: int | None = None
    remove: bool = False


@dataclass(frozen=True)
class RecipeTemplate:
    """A template of the image's metadata."""

    path: str
    content: str
    when: tuple[str, ...] = ("create", "copy")
    create_only: bool = False


@dataclass(frozen=True)
class Recipe:
    """One image that can be built here. Fields as in ``docs/recipes.md``."""

    name: str
    kind: str
    os: str
    release: str
    version: str = ""
    variant: str = "default"
    description: str = ""
    aliases: tuple[str, ...] = ()
    architectures: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()
    services: tuple[str, ...] = ()
    disable: tuple[str, ...] = ()
    files: tuple[RecipeFile, ...] = ()
    templates: tuple[RecipeTemplate, ...] = ()
    mirror: str = ""
    untested: str = ""
    source: str = field(default="", compare=False)

    def key(self) -> str:
        """sha256 of everything that shapes the image, and of the machine's architecture."""
        shape = asdict(self) | {"source": "", "builder": BUILDER_VERSION, "machine": native()[0]}
        return hashlib.sha256(json.dumps(shape, sort_keys=True).encode()).hexdigest()

    def properties(self) -> dict[str, str]:
        """The image's properties."""
        architecture = debian_name(native()[0])
        return {
            "architecture": architecture,
            "description": self.description or f"{self.os} {self.release} {architecture}",
            "name": f"{self.name.replace('/', '-')}-{architecture}",
            "os": self.os,
            "release": self.release,
            "variant": self.variant,
        } | ({"version": self.version} if self.version else {})


def directories(root: str) -> list[str]:
    """Where recipes lie, the first one with a name winning: the administrator's own, the checkout's, the wheel's."""
    checkout = f"{os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))}/images"
    return [f"{root}/recipes", checkout, f"{sys.prefix}/share/lxpy/images", "/usr/share/lxpy/images"]


def load_all(root: str) -> dict[str, Recipe]:
    """Every recipe by name.

    Args:
        root: ``LXPY_DIR``; its ``recipes/`` may hold the administrator's own.

    Raises:
        BadRequest: a file is no recipe; the message says which and why.
    """
    import yaml

    found: dict[str, Recipe] = {}
    for directory in directories(root):
        for path in sorted(glob.glob(f"{directory}/*.yaml")):
            if os.stat(path).st_size > METADATA_LIMIT:
                raise BadRequest(f"Recipe {path} is longer than 1 MiB")
            with open(path, encoding="utf-8") as file:
                try:
                    data = yaml.load(file, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
                except (yaml.YAMLError, UnicodeDecodeError) as error:
                    raise BadRequest(f"Recipe {path} cannot be read: {' '.join(str(error).split())}") from None
            for recipe in parse_all(data, path):
                found.setdefault(recipe.name, recipe)
    return dict(sorted(found.items()))


def parse_all(data: Any, source: str) -> list[Recipe]:
    """The recipe of a file, and one for each of its ``variants``: the lists of a variant go on with the recipe's own.

    Raises:
        BadRequest: names file, key and fault.
    """
    variants = data.pop("variants", {}) if isinstance(data, dict) else {}
    recipes = [parse(data, source)]
    if not isinstance(variants, dict):
        raise BadRequest(f"Recipe {source}: variants is no mapping")
    for variant, more in variants.items():
        if not isinstance(variant, str) or not _NAME.match(variant) or not isinstance(more, dict):
            raise BadRequest(f"Recipe {source}: the variant {variant!r} needs a name and a mapping of its own keys")
        if unknown := set(more) - _OF_VARIANTS:
            raise BadRequest(f"Recipe {source}: variant {variant} has the unknown key {sorted(map(str, unknown))[0]!r}")
        merged = dict(data, name=f"{data['name']}/{variant}", variant=variant)
        merged["aliases"] = [f"{alias}/{variant}" for alias in data.get("aliases", ())]
        for key, value in more.items():
            merged[key] = [*data.get(key, ()), *_list(value, key, source)] if key != "description" else value
        recipes.append(parse(merged, f"{source} (variant {variant})"))
    return recipes


def parse(data: Any, source: str) -> Recipe:
    """A recipe from its YAML; `BadRequest` names file, key and fault."""
    if not isinstance(data, dict):
        raise BadRequest(f"Recipe {source} is no mapping")
    unknown = set(data) - set(Recipe.__dataclass_fields__) | ({"source"} & set(data))
    if unknown:
        raise BadRequest(f"Recipe {source} has the unknown key {sorted(map(str, unknown))[0]!r}")
    for key in ("name", "kind", "os", "release"):
        if not isinstance(data.get(key), str) or not data[key]:
            raise BadRequest(f"Recipe {source} has no {key}")
    if data["kind"] not in KINDS:
        raise BadRequest(f"Recipe {source}: kind {data['kind']!r} is none of {', '.join(KINDS)}")
    values: dict[str, Any] = {"source": source}
    for key, value in data.items():
        if key in ("aliases", "architectures", "packages", "services", "disable"):
            if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
                raise BadRequest(f"Recipe {source}: {key} is no list of texts")
            values[key] = tuple(value)
        elif key == "files":
            values[key] = tuple(_file(item, source) for item in _list(value, key, source))
        elif key == "templates":
            values[key] = tuple(_template(item, source) for item in _list(value, key, source))
        elif not isinstance(value, str):
            raise BadRequest(f"Recipe {source}: {key} is no text (quote numbers)")
        else:
            values[key] = value
    for name in (values["name"], *values.get("aliases", ())):
        if not _NAME.match(name):
            raise BadRequest(f"Recipe {source}: {name!r} is no image name")
    for package in values.get("packages", ()):
        if not re.fullmatch(r"[a-z0-9][a-z0-9.+:-]*", package):
            raise BadRequest(f"Recipe {source}: {package!r} is no package name")
    for unit in (*values.get("services", ()), *values.get("disable", ())):
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9@:._-]*", unit):
            raise BadRequest(f"Recipe {source}: {unit!r} is no service name")
    if any(kernel_name(name) is None for name in values.get("architectures", ())):
        raise BadRequest(f"Recipe {source} names an unknown architecture")
    return Recipe(**values)


def find(recipes: dict[str, Recipe], wanted: str) -> Recipe:
    """The recipe a name, alias, part of a name (``alpine``) or fingerprint of `stand_in` means; `NotFound` with the
    nearest otherwise."""
    image = resolve([stand_in(recipe) for recipe in recipes.values()], wanted, "builtin:")
    return recipes[image.product]


def offered(recipe: Recipe) -> bool:
    """Whether it can be built for this machine."""
    return not recipe.architectures or native()[0] in map(kernel_name, recipe.architectures)


def stand_in(recipe: Recipe) -> StreamImage:
    """A recipe as an image that is not there yet; its fingerprint is the recipe's key, stable until that changes."""
    here = native()[0]
    machine = here if offered(recipe) else kernel_name(recipe.architectures[0]) or here
    aliases = (recipe.name, *recipe.aliases)
    nothing = FileRef("", "", 0)
    return StreamImage(
        recipe.key(), "squashfs", nothing, nothing, recipe.name, aliases, machine, recipe.os, recipe.release, "",
        recipe.version, recipe.variant, "", True, True, {}, 0, 0,
    )  # fmt: skip


def _list(value: Any, key: str, source: str) -> list[Any]:
    if not isinstance(value, list):
        raise BadRequest(f"Recipe {source}: {key} is no list")
    return value


def _absolute(item: Any, what: str, source: str) -> str:
    path = item.get("path") if isinstance(item, dict) else None
    if not isinstance(path, str) or not path.startswith("/") or ".." in path.split("/"):
        raise BadRequest(f"Recipe {source}: a {what} has no absolute path")
    return path


def _file(item: Any, source: str) -> RecipeFile:
    path = _absolute(item, "file", source)
    unknown = set(item) - {"path", "content", "link", "mode", "remove"}
    if unknown:
        raise BadRequest(f"Recipe {source}: file {path} has the unknown key {sorted(map(str, unknown))[0]!r}")
    mode = item.get("mode")
    try:
        number = None if mode is None else int(mode, 8)
    except (TypeError, ValueError):
        raise BadRequest(f'Recipe {source}: file {path}: mode {mode!r} is no octal text such as "0755"') from None
    for key in ("content", "link"):
        if not isinstance(item.get(key), str | None):
            raise BadRequest(f"Recipe {source}: file {path}: {key} is no text")
    return RecipeFile(path, item.get("content"), item.get("link"), number, item.get("remove") is True)


def _template(item: Any, source: str) -> RecipeTemplate:
    path = _absolute(item, "template", source)
    unknown = set(item) - {"path", "content", "when", "create_only"}
    if unknown or not isinstance(item.get("content"), str):
        raise BadRequest(f"Recipe {source}: template {path} needs content, and may have when and create_only")
    when = item.get("when", ["create", "copy"])
    if not isinstance(when, list) or not {"create", "copy", "start", "rename"}.issuperset(map(str, when)):
        raise BadRequest(f"Recipe {source}: template {path}: when is a list of create, copy, start, rename")
    return RecipeTemplate(path, item["content"], tuple(when), item.get("create_only") is True)
