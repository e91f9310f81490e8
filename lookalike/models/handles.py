"""From a model handle to a local folder that holds a SavedModel, and its fingerprint.

A handle is `builtin:<name>`, a folder, a tar archive, a TF-Hub address (`https://…`), or a folder
or archive on remote storage (`gs://…`, `s3://…`). It is resolved once, on the launching machine;
workers only ever load the folder.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from lookalike.errors import RequestError, UnreachableError, one_line
from lookalike.models import downloads
from lookalike.models.archives import extract

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

_CHUNK = 1 << 20
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
        folder: Local folder that holds `saved_model.pb`; for a shipped feature, the one that
            `preparation` exports it to.
        fingerprint: 64 hex digits that identify what the model computes.
        builtin: Whether it is shipped with the package.
    """

    handle: str
    folder: Path
    fingerprint: str
    builtin: bool


def resolve(handle: str, workdir: Path) -> ResolvedModel:
    """Find or fetch the model a handle names.

    A local folder is used where it is; everything else ends in a folder below `workdir` (or in
    `$TFHUB_CACHE_DIR`, for a download, where that is set and can be written).

    Args:
        handle: `builtin:<name>`, a folder or tar archive, or the URL of one.
        workdir: Local folder for what must be unpacked; made if absent.

    Raises:
        RequestError: There is no such model, or it cannot be had; the message gives the cause.
    """
    scheme = re.match(r"([a-zA-Z][a-zA-Z0-9+.-]*):", handle)
    kind = scheme.group(1).lower() if scheme else ""
    if kind == "builtin":
        fingerprint = builtin_fingerprint(handle)
        return ResolvedModel(handle, workdir / fingerprint, fingerprint, builtin=True)
    if kind in ("http", "https"):
        folder = _download(handle, workdir)
    elif kind == "file" or not re.match(r"[^:/]+://", handle):
        folder = _local(handle, workdir)
    else:
        folder = _remote(handle, workdir)
    return ResolvedModel(handle, folder, folder_fingerprint(folder), builtin=False)


def model_files(folder: Path) -> list[str]:
    """List the files that loading a SavedModel needs, relative to its folder, sorted.

    `saved_model.pb`, `tfhub_module.pb` (it marks the TF1 Hub format) and all below `variables/` and
    `assets/`. Nothing else decides what the model computes: `fingerprint.pb`, `keras_metadata.pb`,
    `assets.extra/`, readmes and the litter of file managers are left out.
    """
    files = [name for name in ("saved_model.pb", "tfhub_module.pb") if (folder / name).is_file()]
    for part in ("variables", "assets"):
        for parent, _, names in os.walk(folder / part):
            below = Path(parent).relative_to(folder)
            litter = (".DS_Store", "._")
            files += [(below / name).as_posix() for name in names if not name.startswith(litter)]
    return sorted(files)


def folder_fingerprint(folder: Path) -> str:
    """Identify a SavedModel by its files: 64 hex digits.

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
    """Find the folder with `saved_model.pb`: this one, or its only child that has one."""
    try:
        if (folder / "saved_model.pb").is_file():
            return folder
        entries = sorted(folder.iterdir())
        roots = [entry for entry in entries if (entry / "saved_model.pb").is_file()]
    except OSError as error:
        raise RequestError(f"cannot read {what}: {error}") from error
    if len(roots) == 1:
        return roots[0]
    if roots:
        names = ", ".join(root.name for root in roots)
        raise RequestError(f"{what} holds several models ({names}); give one of these folders")
    names = ", ".join(entry.name for entry in entries[:8]) or "nothing"
    raise RequestError(
        f"{what} has no saved_model.pb (it holds {names}); a handle names a TensorFlow SavedModel "
        "(a Keras model becomes one with model.export(folder))"
    )


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
            "SavedModel folder, a .tar.gz of one, or a URL"
        )
    if path.is_dir():
        return _model_root(path, f"the folder {path}")
    if path.name == "saved_model.pb":
        raise RequestError(f"the handle {handle!r} is a file; give the folder that holds it")
    return _unpack(path, workdir, f"the archive {path}")


def _download(handle: str, workdir: Path) -> Path:
    place = downloads.cache_folder(handle)
    if place and place.is_dir():
        what = f"the folder {place}, which TFHUB_CACHE_DIR holds for {handle},"
        return _model_root(place, what)
    workdir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="download-", dir=workdir) as scratch:
        archive = Path(scratch) / "archive"
        try:
            downloads.fetch(handle, archive)
            folder = _unpack(archive, workdir, f"what {handle} sent")
        except RequestError as error:
            raise RequestError(f"{error}{_WAYS_ON}") from error
    return downloads.keep(folder, place) if place else folder


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
    """Move an unpacked model to its place below `workdir`, named by its fingerprint."""
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
