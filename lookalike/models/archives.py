"""Model archives: tar files, unpacked without trust in who packed them."""

from __future__ import annotations

import errno
import lzma
import shutil
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from lookalike.errors import RequestError, one_line

SUFFIXES = (".tar.gz", ".tgz", ".tar", ".tar.bz2", ".tar.xz")
"""Names that archives of models usually have; what they are is told by content."""

_CHUNK = 1 << 20


@dataclass(frozen=True)
class ArchiveLimits:
    """What an archive may unpack to; beyond, it is taken for damaged or hostile.

    Attributes:
        max_bytes: Of all members together. The largest public image models are below 10 GB.
        max_members: A SavedModel has a handful of files, plus its assets.
    """

    max_bytes: int = 20 << 30
    max_members: int = 100_000


def extract(archive: Path, folder: Path, limits: ArchiveLimits | None = None) -> None:
    """Unpack a tar archive (plain, gzip, bzip2 or xz) of plain files and folders.

    Args:
        archive: Path of the archive.
        folder: An existing empty folder; nothing is written outside it.
        limits: Bounds on what comes out.

    Raises:
        RequestError: It is no tar archive, is damaged, is over a limit, or has a member that is a
            link or a device or would land outside.
    """
    with _opened(archive) as tar:
        for member in _checked(tar, limits or ArchiveLimits()):
            target = folder / member.name
            if member.isdir():
                target.mkdir(parents=True, exist_ok=True)
                continue
            source = tar.extractfile(member)
            if source is None:
                raise RequestError(f"{archive}: {member.name} has no content that can be read")
            target.parent.mkdir(parents=True, exist_ok=True)
            with open(target, "wb") as file:
                shutil.copyfileobj(source, file, _CHUNK)


def check(archive: Path, plain: Path, limits: ArchiveLimits | None = None) -> Path:
    """Check an archive whole, for a library that unpacks it with less care than `extract`.

    Args:
        archive: Path of the archive.
        plain: The file to write where that library could not unpack the archive as it is.
        limits: Bounds on what comes out.

    Returns:
        The archive, or `plain`: the same, uncompressed, with an entry for each folder
        before those of what is in it.

    Raises:
        RequestError: As by `extract`.
    """
    listed, missing = {PurePosixPath(".")}, set[PurePosixPath]()
    with _opened(archive) as tar:
        for member in _checked(tar, limits or ArchiveLimits()):
            path = PurePosixPath(member.name)
            missing |= {*path.parents} - listed
            if member.isdir():
                listed.add(path)
        if not missing:
            return archive
        with open(plain, "wb") as out:
            for folder in sorted(missing):
                entry = tarfile.TarInfo(str(folder))
                entry.type = tarfile.DIRTYPE
                out.write(entry.tobuf())
            uncompressed: Any = tar.fileobj
            uncompressed.seek(0)
            shutil.copyfileobj(uncompressed, out, _CHUNK)
        return plain


@contextmanager
def _opened(archive: Path) -> Iterator[tarfile.TarFile]:
    """The archive, whose faults are reported in the words of a request."""
    try:
        with tarfile.open(archive) as tar:
            yield tar
    except RequestError:
        raise
    except (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, ValueError) as error:
        raise RequestError(_not_an_archive(archive, error)) from error
    except OSError as error:
        # Decompressors raise OSError without a number; names that clash or are too long are the
        # archive's fault as well. A full or failing disk is not.
        own = (None, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG, errno.EINVAL)
        if error.errno not in own:
            raise
        raise RequestError(_not_an_archive(archive, error)) from error


def _checked(tar: tarfile.TarFile, limits: ArchiveLimits) -> Iterator[tarfile.TarInfo]:
    """Its members, each checked, and in the end the archive as a whole."""
    members = total = 0
    while (member := tar.next()) is not None:
        members += 1
        total += member.size if member.isreg() else 0
        if members > limits.max_members:
            raise RequestError(f"the archive has more than {limits.max_members:,} members")
        if total > limits.max_bytes:
            raise RequestError(f"the archive unpacks to more than {limits.max_bytes:,} bytes")
        path = PurePosixPath(member.name)
        if path.is_absolute() or ".." in path.parts or "\\" in member.name or "\0" in member.name:
            raise RequestError(f"the archive has a member outside its folder: {member.name!r}")
        if not (member.isdir() or member.isreg()):
            raise RequestError(
                f"the archive has a member that is no plain file: {member.name!r} "
                "(a model needs no links or devices)"
            )
        yield member
    # A tar ends before its file does; only reading on makes gzip compare its checksum.
    padding = 0
    while rest := len(tar.fileobj.read(_CHUNK) if tar.fileobj else b""):
        padding += rest
        if padding > limits.max_bytes:
            raise RequestError(f"the archive unpacks to more than {limits.max_bytes:,} bytes")


def _not_an_archive(archive: Path, error: BaseException) -> str:
    with open(archive, "rb") as file:
        head = file.read(512)
    if head.startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ")) or head[257:262] == b"ustar":
        return f"the archive is truncated or damaged ({one_line(error)})"
    if head.lstrip()[:1] == b"<":
        return "that is a web page or XML message, not a model archive"
    if head.startswith(b"PK\x03\x04"):
        return "that is a zip file, not a tar archive; unpack it and give the folder"
    content = f"starts with {head[:16]!r}" if head else "is empty"
    return f"that is not a tar archive (it {content})"
