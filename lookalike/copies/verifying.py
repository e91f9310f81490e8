"""Groups looked at again in tasks, by the original files: which are copies, and of what kind.

In each group the pictures are taken in the order of preference. One that is a copy of a picture
kept so far is a copy of that; any other is kept. So of look-alikes all are kept, and if a group is
two photographs and their copies, both photographs are.

    A      kept
    B      compared with A: a crop              -> a copy of A
    C      compared with A: a look-alike        -> kept, too
    D      with A: a look-alike; with C: a flip -> a copy of C
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np

from lookalike.copies.geometry import LOOK_ALIKE, View, relation
from lookalike.copies.groups import Describer, Group, Member
from lookalike.images.decoding import Decoder
from lookalike.images.limits import ImageLimits
from lookalike.images.preparing import resize
from lookalike.outcomes import Decoded
from lookalike.sources.locating import Locator
from lookalike.store.attempts import Record, recorded
from lookalike.store.objects import Store

UNREADABLE = "unreadable"
"""The relation of a picture whose file cannot be had or decoded now."""

_SIDE = 512  # pixels of the longer side of what is compared
_MOST_KEPT = 8  # pictures of a group that others are compared with
_TASK_ROWS = 50

Names = tuple[str, ...]
Verdict = tuple[int, str | None]
"""Of a row: the row of its group that it is a copy of, -1 for none; and what it is to that."""


@dataclass(frozen=True)
class VerifyTask:
    """Some groups."""

    number: int
    folder: str

    @property
    def groups(self) -> str:
        """File of the groups: names of each row of each, in JSON."""
        return f"{self.folder}/groups/{self.number:06d}.txt"

    @property
    def done(self) -> str:
        """Path of the record."""
        return f"{self.folder}/verified/{self.number:06d}.json"


def verify_tasks(scratch: Store, folder: str, groups: Iterable[Group]) -> list[VerifyTask]:
    """Lay out groups for tasks, some fifty pictures for each."""
    tasks: list[VerifyTask] = []
    held: list[list[Names]] = []

    def put() -> None:
        tasks.append(VerifyTask(len(tasks), folder))
        scratch.put_if_absent(tasks[-1].groups, json.dumps(held).encode())
        held.clear()

    for group in groups:
        held.append([tuple(one.uri for one in own) for own in _by_row(group)])
        if sum(map(len, held)) >= _TASK_ROWS:
            put()
    if held:
        put()
    return tasks


@recorded
def verify(task: VerifyTask, scratch: Store) -> Record:
    """Compare the pictures of the task's groups."""
    cv2.setNumThreads(1)  # the engine has a process for each core
    groups = json.loads(scratch.read_bytes(task.groups))
    with Decoder([(_SIDE, _SIDE)], ImageLimits()) as decoder:
        return {"groups": [_verdicts(decoder, rows) for rows in groups]}


def judged(
    describer: Describer, groups: Iterable[Group], records: Iterable[Record]
) -> Iterator[Group]:
    """The groups, in order, with what their tasks recorded."""
    verdicts = (own for record in records for own in record["groups"])
    for group, own in zip(groups, verdicts, strict=True):
        yield _judged(describer, group, [(int(of), kind) for of, kind in own])


def _verdicts(decoder: Decoder, rows: Sequence[Sequence[str]]) -> list[Verdict]:
    found: list[Verdict] = []
    kept: list[tuple[int, View]] = []
    for row, view in enumerate(_views(decoder, rows)):
        if view is None:
            found.append((-1, UNREADABLE))
            continue
        verdict: Verdict = (-1, LOOK_ALIKE if kept else None)
        for other, seen in kept:
            kind = relation(seen, view)
            if kind != LOOK_ALIKE:
                verdict = other, kind
                break
        if verdict[0] < 0 and len(kept) < _MOST_KEPT:
            kept.append((row, view))
        found.append(verdict)
    return found


def _views(decoder: Decoder, rows: Sequence[Sequence[str]]) -> Iterator[View | None]:
    """The picture of each row by the first of its names, else by another; None of none."""
    locator = Locator(read_before=True)
    first = (locator.find(names[0]) for names in rows)
    for names, outcome in zip(rows, decoder.decode(first, once=False), strict=True):
        if not isinstance(outcome, Decoded) and len(names) > 1:
            with Decoder([(_SIDE, _SIDE)], ImageLimits()) as again:
                others = map(locator.find, names[1:])
                readable = (one for one in again.decode(others, once=False))
                outcome = next((one for one in readable if isinstance(one, Decoded)), outcome)
        yield _view(outcome) if isinstance(outcome, Decoded) else None


def _view(outcome: Decoded) -> View:
    """In its own shape: models get squares."""
    longest = max(outcome.width, outcome.height)
    height, width = (
        max(1, round(_SIDE * side / longest)) for side in (outcome.height, outcome.width)
    )
    pixels = resize(outcome.inputs[0], (height, width))
    gray = np.asarray(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), dtype=np.uint8)
    return View(gray, outcome.width, outcome.height)


def _by_row(group: Group) -> list[list[Member]]:
    """The group's members by row, rows in the order of their first name."""
    rows: dict[int, list[Member]] = {}
    for one in group.members:
        rows.setdefault(one.id, []).append(one)
    return list(rows.values())


def _judged(describer: Describer, group: Group, verdicts: Sequence[Verdict]) -> Group:
    """Each picture to keep, in order of preference, with its copies behind it."""
    rows = _by_row(group)
    members: dict[int, list[Member]] = {}
    for row, (own, (of, kind)) in enumerate(zip(rows, verdicts, strict=True)):
        if of < 0:
            kept = replace(own[0], keep=True, copy_of=None, relation=kind)
            members[row] = [kept, *(Describer.compared(one, kept) for one in own[1:])]
            continue
        target = rows[of][0]
        scores = [one.score for one in own]
        if of:  # it is to the first that scores are
            scores = describer.scores(target.id, own)
        members[of] += [
            replace(one, keep=False, copy_of=target.uri, relation=kind, score=score)
            for one, score in zip(own, scores, strict=True)
        ]
    return Group(group.number, tuple(one for own in members.values() for one in own))
