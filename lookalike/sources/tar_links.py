"""Links in a tar: what tar writes in place of a second copy of a file, and of links in a folder.

A link stands for the member that it names, whose data it has under another name. Nothing outside
the tar is looked at.
"""

from __future__ import annotations

import hashlib
import posixpath
from array import array
from dataclasses import replace

from lookalike.sources.tar_members import Member, shown


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
