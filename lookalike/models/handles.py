"""From a model handle to a local folder that holds a model, and its fingerprint.

A handle is `builtin:<name>`, `python:module:function`, a folder with a SavedModel or with a model
of ONNX or OpenVINO, the file of such a model, a tar archive, an address (`https://…`), a model of
Kaggle (`kaggle:…`), or a folder or archive on remote storage (`gs://…`, `s3://…`). It is resolved
once, on the launching machine; workers only ever load the folder.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from lookalike.errors import RequestError, UnreachableError, one_line
from lookalike.models import hub, onnx_files, python_files
from lookalike.models.archives import extract
from lookalike.models.onnx_files import PREPARED
from lookalike.models.onnx_preprocessing import PROCESSOR, settle

# Name: the module that makes it (and what in it), and the version of what it computes. The versions
# stand here so that they are known without loading TensorFlow.
BUILTINS = {
    "photo": ("lookalike.models.photo", 1),
    "color-texture": ("lookalike.models.color_texture", 2),
    "color": ("lookalike.models.descriptors:color", 1),
    "color-pairs": ("lookalike.models.descriptors:color_pairs", 1),
    "color-difference": ("lookalike.models.descriptors:color_difference", 1),
    "micro-structure": ("lookalike.models.descriptors:micro_structure", 1),
    "texture": ("lookalike.models.descriptors:texture", 1),
    "shape": ("lookalike.models.descriptors:shape", 1),
}
"""Features shipped with the package, and the modules that build them."""

MARKERS = ("saved_model.pb", onnx_files.MODEL, onnx_files.IR, python_files.MARKER)
"""Files that mark a folder as holding a model, and the kind of it."""

_CHUNK = 1 << 20
_ONNX, _IR = ".onnx", ".xml"
_WAYS_ON = (
    "; ways on: download the model where that works (for Kaggle: `kaggle models instances versions "
    "download OWNER/MODEL/FRAMEWORK/VARIATION/VERSION`) and give its folder or archive as the "
    "handle, or use builtin:photo, which needs no network"
)


@dataclass(frozen=True)
class ResolvedModel:
    """A model at hand.

    Attributes:
        handle: As it was asked for.
        folder: Local folder that holds one of `MARKERS`; for a shipped feature, the one that
            `preparation` exports it to.
        fingerprint: 64 hex digits that identify what the model computes.
        builtin: Whether it is shipped with the package.
        range_known: Whether anything says what range of values the model takes.
    """

    handle: str
    folder: Path
    fingerprint: str
    builtin: bool
    range_known: bool = True


def resolve(
    handle: str,
    workdir: Path,
    options: Mapping[str, Any] | None = None,
    input_size: tuple[int, int] | None = None,
    say: Callable[[str], None] = print,
) -> ResolvedModel:
    """Find or fetch the model a handle names.

    A local folder is used where it is; everything else ends in a folder below `workdir`, a download
    in `$TFHUB_CACHE_DIR` where that is set and can be written, a model of Kaggle in its own cache.

    Args:
        handle: `builtin:<name>`, `python:module:function`, a folder or tar archive, the URL of one,
            or `kaggle:owner/model/framework/variation[/version]`.
        workdir: Local folder for what must be unpacked; made if absent.
        options: What the configuration says of the feature that only some kinds of models take.
        input_size: What the configuration says of that: it is part of an ONNX model's
            preprocessing.
        say: Takes a line for a person.

    Raises:
        RequestError: There is no such model, or it cannot be had, or it takes none of the options;
            the message gives the cause.
    """
    options = options or {}
    scheme = re.match(r"([a-zA-Z][a-zA-Z0-9+.-]*):", handle)
    kind = scheme.group(1).lower() if scheme else ""
    if kind == "builtin":
        fingerprint = builtin_fingerprint(handle)
        _takes_no(options, handle)
        return ResolvedModel(handle, workdir / fingerprint, fingerprint, builtin=True)
    if kind == "python":
        folder = python_files.gather(python_files.parse(handle, options, input_size), workdir)
        return ResolvedModel(handle, folder, folder_fingerprint(folder), builtin=False)
    if kind in ("http", "https", "kaggle"):
        found = _download(kind + handle[len(kind) :], workdir, say)
    elif kind == "file" or not re.match(r"[^:/]+://", handle):
        found = _local(handle, workdir)
    else:
        found = _remote(handle, workdir)
    if found.is_dir():
        _takes_no(options, f"the SavedModel {handle}")
        return ResolvedModel(handle, found, folder_fingerprint(found), builtin=False)
    settled, known = settle(found.parent, options, input_size)
    folder = onnx_files.gather(found, settled, workdir)
    return ResolvedModel(handle, folder, folder_fingerprint(folder), False, known)


def _takes_no(options: Mapping[str, Any], what: str) -> None:
    if options:
        raise RequestError(
            f"{what} takes no {', '.join(sorted(options))}; params are for functions, the others "
            "for ONNX models"
        )


def marker_of(folder: Path) -> str:
    """The file that marks a folder as holding a model; "" where there is none."""
    return next((name for name in MARKERS if (folder / name).is_file()), "")


def model_files(folder: Path) -> list[str]:
    """List the files that loading a model needs, relative to its folder, sorted.

    Of an ONNX model, and of a function, all that were gathered. Of a SavedModel: `saved_model.pb`,
    `tfhub_module.pb` (it marks the TF1 Hub format) and all below `variables/` and `assets/`.
    Nothing else decides what the model computes: `fingerprint.pb`, `keras_metadata.pb`,
    `assets.extra/`, readmes and the litter of file managers are left out.
    """
    if marker_of(folder) not in ("", "saved_model.pb"):
        whole = [path.relative_to(folder) for path in folder.rglob("*") if path.is_file()]
        return sorted(one.as_posix() for one in whole if one.parts[0] != PREPARED)
    files = [name for name in ("saved_model.pb", "tfhub_module.pb") if (folder / name).is_file()]
    for part in ("variables", "assets"):
        for parent, _, names in os.walk(folder / part):
            below = Path(parent).relative_to(folder)
            litter = (".DS_Store", "._")
            files += [(below / name).as_posix() for name in names if not name.startswith(litter)]
    return sorted(files)


def folder_fingerprint(folder: Path) -> str:
    """Identify a model by its files: 64 hex digits.

    sha256 over, for each of `model_files` in order, its path, a zero byte and its sha256. Files are
    hashed because TensorFlow's own `fingerprint.pb` is missing from older models and not recomputed
    when a file changes. Two saves of one model differ, as `saved_model.pb` is not written
    reproducibly; copies, archives and downloads of one save agree.

    Raises:
        RequestError: A file cannot be read.
    """
    total = hashlib.sha256()
    for name in model_files(folder):
        digest = hashlib.sha256()
        try:
            with open(folder / name, "rb") as file:
                while chunk := file.read(_CHUNK):
                    digest.update(chunk)
        except OSError as error:
            raise RequestError(f"cannot read the model file {folder / name}: {error}") from error
        total.update(os.fsencode(name) + b"\0" + digest.digest())
    return total.hexdigest()


def _model_root(folder: Path, what: str) -> Path:
    """Find a model in this folder, or in its only child that has one.

    Returns:
        The folder with `saved_model.pb`, or the file of an ONNX model or one of OpenVINO's.
    """
    try:
        if here := _models_in(folder):
            return _only(here, what)
        entries = sorted(folder.iterdir())
        roots = [root for entry in entries if entry.is_dir() for root in _models_in(entry)]
    except OSError as error:
        raise RequestError(f"cannot read {what}: {error}") from error
    if roots:
        return _only(roots, what)
    names = ", ".join(entry.name for entry in entries[:8]) or "nothing"
    raise RequestError(
        f"{what} has no saved_model.pb and no .onnx file (it holds {names}); a handle names a "
        "TensorFlow SavedModel (a Keras model becomes one with model.export(folder)), an ONNX "
        "file (torch.onnx.export) or one of OpenVINO's (an .xml with a .bin beside it)"
    )


def _models_in(folder: Path) -> list[Path]:
    """Its SavedModel, else its ONNX files, else OpenVINO's.

    `model.onnx` and `model.xml` go before others, such as variants.
    """
    if (folder / "saved_model.pb").is_file():
        return [folder]
    if model := onnx_files.model_in(folder):
        return [model]
    files = sorted(one for one in folder.iterdir() if one.name[:2] != "._" and one.is_file())
    onnx = [one for one in files if one.name.lower().endswith(_ONNX)]
    own = [one for one in files if one.name.lower().endswith(_IR)]
    return onnx or [one for one in own if one.with_suffix(".bin").is_file()]


def _only(roots: Sequence[Path], what: str) -> Path:
    if len(roots) == 1:
        return roots[0]
    names = ", ".join(root.name for root in roots)
    raise RequestError(f"{what} holds several models ({names}); give one of these")


def builtin_fingerprint(handle: str) -> str:
    """The fingerprint of a `builtin:<name>`, which is known without the model.

    Raises:
        RequestError: There is no such model.
    """
    name = handle.partition(":")[2]
    if name not in BUILTINS:
        known = ", ".join(f"builtin:{known}" for known in BUILTINS)
        raise RequestError(f"there is no {handle}; the built-in features are: {known}")
    # The version stands for the exported bytes, which other versions of TensorFlow may change.
    identity = f"builtin:{name}:{BUILTINS[name][1]}"
    return hashlib.sha256(identity.encode()).hexdigest()


def _local(handle: str, workdir: Path) -> Path:
    text = handle
    if handle[:7].lower() == "file://":  # file:///path, or file://host/path
        text = "/" + unquote(handle[7:]).partition("/")[2]
    path = Path(os.path.abspath(os.path.expanduser(text)))
    if not text or not path.exists():
        raise RequestError(
            f"there is no model at {handle!r} (looked at {path}); a handle is builtin:<name>, a "
            "SavedModel folder, an .onnx file or an .xml of OpenVINO, a .tar.gz of one, or a URL"
        )
    if path.is_dir():
        return _model_root(path, f"the folder {path}")
    if path.name == "saved_model.pb":
        raise RequestError(f"the handle {handle!r} is a file; give the folder that holds it")
    if path.name.lower().endswith((_ONNX, _IR)):
        return path
    return _unpack(path, workdir, f"the archive {path}")


def _download(handle: str, workdir: Path, say: Callable[[str], None]) -> Path:
    if place := hub.cached(handle, say):
        return _model_root(place, f"the folder {place}, which TFHUB_CACHE_DIR holds for {handle},")
    workdir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="download-", dir=workdir) as scratch:
        try:
            found = hub.fetch(handle, Path(scratch))
            if "://" in found:
                return _remote(found, workdir)
            root = _model_root(Path(found), f"what {handle} sent")
        except RequestError as error:
            raise RequestError(f"{error}{_WAYS_ON}") from error
        return _settle(root, workdir) if root.is_relative_to(scratch) else root


def _remote(handle: str, workdir: Path) -> Path:
    from lookalike.store import storage  # pyarrow is not needed for any other kind of handle

    workdir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="copy-", dir=workdir) as scratch:
        try:
            copy = storage.copy_to_local(handle, Path(scratch))
        except UnreachableError:
            raise
        except Exception as error:  # every file system has its own
            cause = one_line(error)
            raise RequestError(f"cannot copy the model {handle}: {cause}{_WAYS_ON}") from error
        if copy.name.lower().endswith(_ONNX) and copy.is_file():
            return _settle(copy, workdir)
        if not copy.is_dir():
            return _unpack(copy, workdir, f"the archive {handle}")
        return _settle(_model_root(copy, f"the folder {handle}"), workdir)


def _unpack(archive: Path, workdir: Path, what: str) -> Path:
    workdir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="unpack-", dir=workdir) as scratch:
        try:
            extract(archive, Path(scratch))
        except PermissionError as error:
            raise RequestError(f"cannot read {what}: {error}") from error
        except RequestError as error:
            raise RequestError(f"cannot use {what} as a model: {error}") from error
        return _settle(_model_root(Path(scratch), what), workdir)


def _settle(root: Path, workdir: Path) -> Path:
    """Move an unpacked model to its place below `workdir`, a SavedModel's by its fingerprint.

    The file of another model goes with what lies beside it, and in the folder above.
    """
    if root.is_file():
        place = Path(tempfile.mkdtemp(prefix="unpacked-", dir=workdir))
        above = root.parent.parent / PROCESSOR
        if root.parent.name == "onnx" and above.is_file():
            above.rename(place / PROCESSOR)
        root.parent.rename(place / root.parent.name)
        return place / root.parent.name / root.name
    fingerprint = folder_fingerprint(root)
    target = workdir / fingerprint
    if target.exists() and folder_fingerprint(target) != fingerprint:
        shutil.rmtree(target)  # cut short by a crash of the machine
    _move(root, target)
    return target


def _move(source: Path, target: Path) -> None:
    """Rename a folder; where another process was first, its folder stands."""
    try:
        source.rename(target)
    except OSError as error:
        if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
            raise
