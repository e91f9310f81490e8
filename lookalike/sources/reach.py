"""What the rows of a manifest name, looked up; and what becomes of rows that cannot be reached."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace

from lookalike.errors import UnreachableError, one_line
from lookalike.records import SourceFile
from lookalike.sources.looking_up import look_up_all
from lookalike.sources.selection import Selection
from lookalike.store.s3_uri import canonical

_MOST_LOST = 20  # rows in a row that cannot be reached


@dataclass
class Reach:
    """Whether what a manifest names can be reached at all.

    Where no run before has listed the manifest, it is the source that cannot be reached.
    """

    known: bool
    lost: list[UnreachableError] = field(default_factory=list)
    answered: bool = False

    @property
    def given_up(self) -> bool:
        """Whether so many in a row cannot be reached that others are not tried."""
        return len(self.lost) >= _MOST_LOST

    def judge(self, uri: str, answer: SourceFile | UnreachableError) -> SourceFile:
        """A row's file, or its problem.

        Raises:
            UnreachableError: Too many cannot be reached, and the manifest is not known.
        """
        if isinstance(answer, SourceFile):
            self.answered = True
            self.lost.clear()
            return answer
        if len(self.lost) < _MOST_LOST:
            self.lost.append(answer)
            if len(self.lost) == _MOST_LOST and not self.known:
                raise answer
        name = canonical(uri)
        return SourceFile(name, -1, "", one_line(answer), hides=name)

    def finish(self) -> None:
        """All rows were judged.

        Raises:
            UnreachableError: None of them answered, and the manifest is not known.
        """
        if self.lost and not self.answered and not self.known:
            raise self.lost[0]


def looked_up(
    rows: Iterable[SourceFile], selection: Selection, reach: Reach
) -> Iterator[SourceFile]:
    """Rows of a manifest, as far as they are taken, with sizes and versions of what they name.

    Where many in a row cannot be reached, the others are not tried.
    """
    taken = [row for row in rows if not (selection.exclude and selection.rule_of_name(row.uri, ()))]
    asked = [row.uri for row in taken if not (row.problem or row.version)]
    with closing(look_up_all(asked if not reach.given_up else [])) as answers:
        for row in taken:
            if row.problem or row.version:
                yield row
                continue
            answer = reach.lost[-1] if reach.given_up else next(answers)
            yield replace(reach.judge(row.uri, answer), metadata=row.metadata)
