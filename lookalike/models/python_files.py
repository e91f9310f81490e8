"""What a `python:module:function` is made of: its handle, its source, what that imports.

    feature.json             the function, its parameters, hashes of sources, versions of packages
    source/<module>.py       the source of the module, and of local ones that it imports

All of it is the feature's fingerprint. The source in a store is a record, and never run: a query
imports the module as indexing did, and refuses one that differs.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import json
import re
import sys
import tempfile
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from lookalike.errors import RequestError, one_line
from lookalike.images.functions import Function, find_modules

MARKER = "feature.json"
OPTIONS = ("params",)
"""Keys of a feature that only functions take."""

DEFAULT_SIZE = (256, 256)
"""Height and width of the pictures where neither handle nor configuration gives them."""

_HANDLE = re.compile(r"python:([A-Za-z_][\w.]*):([A-Za-z_]\w*)(?:\?(.*))?")
_SIZE = re.compile(r"(\d{1,4})(?:x(\d{1,4}))?")


def parse(handle: str, options: Mapping[str, Any], input_size: tuple[int, int] | None) -> Function:
    """Read a handle: `python:module:function`, `?size=HEIGHTxWIDTH` and parameters after it.

    Args:
        handle: As written.
        options: Of the feature: `params`, which go before the handle's.
        input_size: Of the feature; it goes before the handle's.

    Raises:
        RequestError: It is not understood.
    """
    match = _HANDLE.fullmatch(handle)
    if not match:
        raise RequestError(
            f"the handle {handle!r} is not understood; it is written python:module:function, with "
            "?size=256 or other parameters after it"
        )
    params: dict[str, Any] = {}
    size = None
    for key, value in parse_qsl(match[3] or "", keep_blank_values=True):
        if key == "size":
            sides = _SIZE.fullmatch(value)
            if not sides or not all(int(one) >= 8 for one in sides.groups() if one):
                raise RequestError(f"{handle}: size needs HEIGHTxWIDTH or one number, got {value}")
            size = int(sides[1]), int(sides[2] or sides[1])
        else:
            try:
                params[key] = json.loads(value)
            except ValueError:
                params[key] = value
    unknown = sorted(options.keys() - set(OPTIONS))
    if unknown:
        raise RequestError(
            f"{handle} takes no {', '.join(unknown)}, which are for ONNX models; what a function "
            "takes is given under params"
        )
    params |= checked_params(options.get("params", {}), handle)
    return Function(
        match[1], match[2], json.dumps(params, sort_keys=True), input_size or size or DEFAULT_SIZE
    )


def checked_params(params: Any, where: str) -> dict[str, Any]:
    """Check a function's parameters: names and plain values.

    Raises:
        RequestError: They are not.
    """
    if not isinstance(params, Mapping) or not all(
        isinstance(name, str) and name.isidentifier() for name in params
    ):
        raise RequestError(f"{where}: params needs names and values, got {params!r}")
    try:
        json.dumps(dict(params), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise RequestError(
            f"{where}: params must be plain numbers, texts and lists: {one_line(error)}"
        ) from error
    return dict(params)


def gather(function: Function, workdir: Path) -> Path:
    """Write down what a function is made of, in a new folder below `workdir`.

    Raises:
        RequestError: Its module is not found, or has no source.
    """
    described, sources = describe(function)
    workdir.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="python-", dir=workdir))
    (folder / "source").mkdir()
    for name, data in sources.items():
        (folder / "source" / f"{name}.py").write_bytes(data)
    text = json.dumps(described, sort_keys=True, indent=1) + "\n"
    (folder / MARKER).write_text(text, encoding="utf-8")
    return folder


def describe(function: Function) -> tuple[dict[str, Any], dict[str, bytes]]:
    """What decides a function's vectors, as the marker holds it, and the sources by module.

    Raises:
        RequestError: Its module is not found, or has no source.
    """
    find_modules()
    sources: dict[str, bytes] = {}
    packages: dict[str, str] = {}
    owners = metadata.packages_distributions()
    waiting = [function.module]
    while waiting:
        name = waiting.pop()
        if name in sources:
            continue
        data = _source(name, function if name == function.module else None)
        if data is None:
            continue
        sources[name] = data
        for imported in _imports(data, name, function):
            top = imported.partition(".")[0]
            if top in owners and top != function.module.partition(".")[0]:
                packages |= {one: metadata.version(one) for one in owners[top]}
            elif top not in sys.stdlib_module_names:
                waiting.append(imported)
    described = {
        "module": function.module,
        "function": function.name,
        "params": json.loads(function.params),
        "size": list(function.size),
        "sources": {name: hashlib.sha256(data).hexdigest() for name, data in sources.items()},
        "packages": packages,
    }
    return described, sources


def check(function: Function, folder: Path) -> None:
    """Check that a function here is the one that made a store's vectors.

    Raises:
        RequestError: It is not, or is not found.
    """
    made = json.loads((folder / MARKER).read_text(encoding="utf-8"))
    here, _ = describe(function)
    if here == made:
        return
    differ = [
        f"{name} is {here['packages'].get(name, 'not used')} here, {version} there"
        for name, version in made["packages"].items()
        if here["packages"].get(name) != version
    ]
    differ += [
        f"the source of {name} differs"
        for name in sorted(made["sources"].keys() | here["sources"].keys())
        if made["sources"].get(name) != here["sources"].get(name)
    ]
    raise RequestError(
        f"{function} is not the one that made the store's vectors: "
        f"{'; '.join(differ) or 'its parameters differ'}; use the same (its source is in "
        f"{folder}), or index again"
    )


def _source(name: str, needed_by: Function | None) -> bytes | None:
    """The source of a module; None for one that is not needed and has none."""
    try:
        spec = importlib.util.find_spec(name)
    except Exception as error:  # a package above it is imported, whose code may raise anything
        if needed_by is None:
            return None
        raise RequestError(
            f"{needed_by}: the module {name} cannot be found: {one_line(error)}; {_REMEDY}"
        ) from error
    origin = spec.origin if spec else None
    there = bool(origin) and Path(str(origin)).is_file()
    if origin and there and origin.endswith(".py"):
        return Path(origin).read_bytes()
    if needed_by is None:
        return None
    if spec is None or (origin and origin.endswith(".py")):
        raise RequestError(f"{needed_by}: there is no module {name}; {_REMEDY}")
    raise RequestError(
        f"{needed_by}: the module {name} has no Python source, which the fingerprint is made from; "
        "name a function in a .py file that calls it"
    )


_REMEDY = "install it, start in its folder, or name that in PYTHONPATH"


def _imports(source: bytes, name: str, function: Function) -> Iterator[str]:
    """Dotted names that a module imports, wherever in it."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError) as error:
        raise RequestError(f"{function}: {name} is no Python: {one_line(error)}") from error
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                spec = importlib.util.find_spec(name)
                package = (
                    name if spec and spec.submodule_search_locations else name.rpartition(".")[0]
                )
                try:
                    base = importlib.util.resolve_name("." * node.level + base, package)
                except ImportError:
                    continue
            if base:
                yield base
                yield from (f"{base}.{alias.name}" for alias in node.names if alias.name != "*")
