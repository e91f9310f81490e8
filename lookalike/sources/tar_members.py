"""Walking the headers of a tar: what lies where, and where it stops making sense.

`tarfile` ends in silence at a damaged header and keeps every member in memory; here a walk holds
one member and says what is wrong. Headers are parsed by `tarfile`.

A link, which tar writes in place of a second copy of a file, stands for the member that it names,
whose data it has under another name. Nothing outside the tar is looked at.
"""

from __future__ import annotations

import hashlib
import posixpath
import re
import tarfile
from array import array
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from lookalike.sources.tar_streams import TarStream

_BLOCK = 512
_MAX_EXTENSION = 1 << 20  # bytes of a long name or of pax records
_MAX_NAME = 4096  # bytes, as of a path
_MAX_SIZE = 2**62
_FILES = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE, tarfile.GNUTYPE_SPARSE)
_LINKS = (tarfile.LNKTYPE, tarfile.SYMTYPE)
_DEVICES = (tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE)
_DUMPED = b"D"  # a folder as GNU tar dumps it: with data
_UNLISTED = (tarfile.DIRTYPE, b"V", _DUMPED)  # b"V" is a volume's label
_WITHOUT_DATA = (*_LINKS, *_DEVICES, tarfile.DIRTYPE, b"V")
_SPARSE = b"GNU.sparse."
_RECORD = re.compile(rb"(\d{1,20}) ([^=]+)=")


class BrokenTarError(ValueError):
    """The tar cannot be followed any further; the message says from which byte on and why."""


class NotATarError(BrokenTarError):
    """Not even its beginning is that of a tar."""


@dataclass(frozen=True)
class Member:
    """A file in a tar, or a link.

    Attributes:
        name: As its header gives it.
        link: The name of the member that it stands for, "" if it is a file itself.
        offset: Of its first byte in the unpacked tar.
        bytes: Its announced size.
        problem: Why it cannot be read, "" if it can.
    """

    name: bytes
    link: bytes
    offset: int
    bytes: int
    problem: str = ""


@dataclass
class _Header:
    """One header with what the extensions before it say."""

    name: bytes
    link: bytes
    size: int
    kind: bytes
    problem: str = ""


def walk(stream: TarStream) -> Iterator[Member]:
    """Members but for folders, in order; the data of the one just given may be read.

    A member whose data are cut off is given too, before the error. Members after an end mark are
    given (tars that were concatenated). A link has no data of its own.

    Raises:
        BrokenTarError: At the end, where the tar does not end as it should.
        OSError: It cannot be read.
    """
    last, ended = "", False
    while True:
        start = stream.position
        block = stream.read(_BLOCK)
        if not block.strip(b"\0"):
            ended = ended or len(block) == _BLOCK
            if len(block) == _BLOCK:
                continue
            if stream.fault or not ended:
                what = "cannot be read to its end" if ended else "ends without an end mark"
                raise _broken(stream, start, last, what)
            return
        header = _read_header(stream, block, start, last)
        ended, last = False, shown(header.name)
        offset = stream.position
        if header.kind in _WITHOUT_DATA:
            header.size = 0
        if header.kind not in _UNLISTED:
            yield _member(header, offset)
        left = offset + header.size - stream.position
        if left < 0:
            raise RuntimeError(f"{last}: {header.size:,} bytes of data, {-left:,} more were read")
        if (skipped := stream.skip(left)) < left:
            have = header.size - left + skipped
            what = f"ends within {last} ({have:,} of {header.size:,} bytes)"
            raise _broken(stream, offset + have, "", what)
        stream.skip(-header.size % _BLOCK)


def _member(header: _Header, offset: int) -> Member:
    name, link = header.name[:_MAX_NAME], header.link
    if header.kind == tarfile.SYMTYPE:  # from the folder that it lies in
        link = posixpath.normpath(posixpath.join(posixpath.dirname(name), link))
    link = (link or b".") if header.kind in _LINKS else b""
    return Member(name, link, offset, header.size, header.problem)


def _read_header(stream: TarStream, block: bytes, start: int, last: str) -> _Header:
    """The header that begins with `block`; extensions before it are read and applied."""
    long: dict[bytes, bytes] = {}
    pax: dict[bytes, bytes] = {}
    while True:
        try:
            info = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        except tarfile.HeaderError as error:
            if stream.position <= _BLOCK:
                raise NotATarError(f"not a tar (it starts with {block[:16]!r})") from error
            is_cut = len(block) < _BLOCK or not block.strip(b"\0")
            what = "ends within a header" if is_cut else "no tar header"
            raise _broken(stream, start, last, what) from error
        kind, size = info.type, info.size
        if not 0 <= size < _MAX_SIZE:
            raise _broken(stream, start, last, f"a header announces {size} bytes")
        if kind in (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK):
            long[kind] = _extension(stream, size, start, last).split(b"\0", 1)[0]
        elif kind in (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE):
            pax.update(_pax(_extension(stream, size, start, last)))
        elif kind == tarfile.XGLTYPE:  # for all that follow, where no names or sizes belong
            _extension(stream, size, start, last)
        else:
            name, link = (
                text.encode("utf-8", "surrogateescape") for text in (info.name, info.linkname)
            )
            name = long.get(tarfile.GNUTYPE_LONGNAME, name)
            header = _Header(name, long.get(tarfile.GNUTYPE_LONGLINK, link), size, kind)
            _apply(stream, block, header, pax, start, last)
            return header
        block = stream.read(_BLOCK)


def _apply(
    stream: TarStream,
    block: bytes,
    header: _Header,
    pax: Mapping[bytes, bytes],
    start: int,
    last: str,
) -> None:
    """Let extensions have their way with a header, and see what is odd about it."""
    header.name = pax.get(b"GNU.sparse.name", pax.get(b"path", header.name))
    header.link = pax.get(b"linkpath", header.link)
    if (text := pax.get(b"size")) is not None:
        if not re.fullmatch(rb"\d{1,18}", text):
            raise _broken(stream, start, last, f"a header announces {text[:40]!r} bytes")
        header.size = int(text)
    if header.kind == tarfile.AREGTYPE and header.name.endswith(b"/"):
        header.kind = tarfile.DIRTYPE  # as of old
    if header.kind not in (*_FILES, *_WITHOUT_DATA, _DUMPED):
        header.problem = f"a tar member of unknown type {header.kind!r}"
    elif header.kind in _DEVICES:
        header.problem = "not a regular file"
    elif len(header.name) > _MAX_NAME:
        header.problem = f"a name of {len(header.name):,} bytes, the limit is {_MAX_NAME:,}"
    if header.kind == tarfile.GNUTYPE_SPARSE or _SPARSE in pax:
        header.problem = "a sparse tar member; pack the file without --sparse"
    if header.kind == tarfile.GNUTYPE_SPARSE and block[482]:
        while len(more := stream.read(_BLOCK)) == _BLOCK and more[504]:
            pass


def _extension(stream: TarStream, size: int, start: int, last: str) -> bytes:
    if size > _MAX_EXTENSION:
        what = f"an extended header has {size:,} bytes, the limit is {_MAX_EXTENSION:,}"
        raise _broken(stream, start, last, what)
    data = stream.read(size)
    if len(data) < size or stream.skip(-size % _BLOCK) < -size % _BLOCK:
        raise _broken(stream, start, last, "ends within an extended header")
    return data


def _pax(data: bytes) -> dict[bytes, bytes]:
    """What matters of the records `<length> <key>=<value>` and a line feed, up to a wrong one."""
    found: dict[bytes, bytes] = {}
    position = 0
    while match := _RECORD.match(data, position):
        end = position + int(match[1])
        if end <= match.end() or data[end - 1 : end] != b"\n":
            break
        if match[2] in (b"path", b"linkpath", b"size", b"GNU.sparse.name"):
            found[match[2]] = data[match.end() : end - 1]
        if match[2].startswith(_SPARSE):
            found[_SPARSE] = b""
        position = end
    return found


def _broken(stream: TarStream, start: int, last: str, what: str) -> BrokenTarError:
    if stream.position == 0:
        return NotATarError(stream.fault or "not a tar (it is empty)")
    after = f", after {last}" if last else ""
    fault = f" ({stream.fault})" if stream.fault else ""
    return BrokenTarError(
        f"the tar is damaged or cut short at byte {start:,}{after}: {what}{fault}; what follows "
        "is not listed"
    )


def shown(name: bytes) -> str:
    """A name as messages have it."""
    text = name.decode("utf-8", "backslashreplace")
    return repr(text if len(text) <= 100 else f"{text[:99]}…")


def name_hash(name: bytes) -> int:
    """Stands for a name where very many are held: 8 bytes of BLAKE2b."""
    return int.from_bytes(hashlib.blake2b(name, digest_size=8).digest(), "little")


class Places:
    """Where the data of members lie, by name; of a name that came again, those of the last."""

    def __init__(self) -> None:
        self._names, self._offsets, self._sizes = array("Q"), array("q"), array("q")
        self._rows: dict[int, int] = {}  # by name, of the first members; made for the first link
        self._known = 0

    def add(self, member: Member) -> None:
        """Take a member that is no link, or a link that was resolved."""
        self._names.append(name_hash(member.name))
        self._offsets.append(-1 if member.problem else member.offset)
        self._sizes.append(member.bytes)

    def resolve(self, link: Member) -> Member | None:
        """The link as a file, whose data are those of the member it names; None if none has come.

        A link to a link is resolved once that one was, and was added.
        """
        for row in range(self._known, len(self._names)):
            self._rows[self._names[row]] = row
        self._known = len(self._names)
        plain = posixpath.normpath(link.link)
        inside = plain.lstrip(b"/")  # tar strips it of names, and not of what they link to
        names = (link.link, plain, inside, b"./" + inside)
        row = next((self._rows[key] for key in map(name_hash, names) if key in self._rows), -1)
        if row < 0:
            return None
        if self._offsets[row] < 0:
            problem = f"a link to {shown(link.link)}, which cannot be read"
            return replace(link, link=b"", problem=problem)
        return replace(link, link=b"", offset=self._offsets[row], bytes=self._sizes[row])


def leads_nowhere(link: Member) -> Member:
    """A link that was not resolved, with its problem."""
    problem = f"a link to {shown(link.link)}, which is no file in the tar"
    return replace(link, link=b"", problem=link.problem or problem)
