"""Which pictures are learned from, and which are held out to judge by.

With labels whole labels are held out, so that what is measured is how things never seen are told
apart. Without, pictures are, and altered copies of one ask for each other.

The queries are dealt into two halves, by what they show. The best moment of the training is chosen
by one half and measured on the other, both ways; no query judges a network that was chosen by it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lookalike.errors import RequestError
from lookalike.images.preparing import resize
from lookalike.learning.altered import COPIES, copies
from lookalike.learning.gathering import Pictures, Pixels, Rows
from lookalike.learning.held_out import Fold
from lookalike.learning.labelled import OTHER, sample_by_label

SHARE = 0.25  # of the labels, or of the pictures, that are held out
_LABELS = 8  # of two pictures at least: four are held out, two in a half
_PICTURES = 20
_JUDGED, _COPIED = 1000, 100  # pictures held out at most: with labels; those that are altered
_BATCH = 64

Kinds = npt.NDArray[np.int64]


@dataclass(frozen=True)
class HeldOut:
    """What is held out; all of it is compared.

    Attributes:
        rows: Of the pictures.
        altered: Whether copies of each are compared, and not the pictures.
        halves: Half of the kinds each, as queries.
    """

    rows: Rows
    altered: bool
    halves: tuple[Fold, Fold]

    def batches(self, pictures: Pictures, size: tuple[int, int]) -> Iterator[Pixels]:
        """What is compared, in the halves' order: some (n, *size, 3) uint8 at a time."""
        waiting: list[Pixels] = []
        for row in self.rows.tolist():
            [pixels] = pictures.take(np.array([row]))
            views = copies(pixels, row) if self.altered else [pixels]
            waiting += [resize(np.ascontiguousarray(view), size) for view in views]
            if len(waiting) >= _BATCH:
                yield np.stack(waiting)
                waiting = []
        if waiting:
            yield np.stack(waiting)


@dataclass(frozen=True)
class Split:
    """What is learned from and what is held out.

    Attributes:
        rows: Of the pictures to learn from, those of one kind side by side.
        starts: Where each kind begins among `rows`; (kinds + 1,).
        held: What is held out; it shares no kind with `rows`.
    """

    rows: Rows
    starts: Kinds
    held: HeldOut

    @property
    def kinds(self) -> int:
        """That are learned."""
        return len(self.starts) - 1

    def batch(self, kinds: int, each: int, seed: Sequence[int]) -> tuple[Rows, Kinds]:
        """Draw kinds and pictures of them, the same for the same seed: rows and their kinds.

        A kind of fewer pictures than `each` gives some of them more than once.
        """
        rng = np.random.default_rng(seed)
        chosen = rng.choice(self.kinds, min(kinds, self.kinds), replace=False)
        rows = []
        for kind in chosen.tolist():
            start, count = int(self.starts[kind]), int(self.starts[kind + 1] - self.starts[kind])
            rows.append(self.rows[start + rng.choice(count, each, replace=count < each)])
        return np.concatenate(rows), np.repeat(chosen, each)


def split(labels: Sequence[str] | None, count: int, k: int, seed: int) -> Split:
    """Deal pictures.

    Args:
        labels: One for each picture; None where there are none.
        count: Pictures.
        k: Of precision at k.
        seed: Of the deal.

    Raises:
        RequestError: There are too few labels or pictures, or k is below 1.
    """
    if k < 1:
        raise RequestError(f"k must be at least 1, got {k}")
    if labels is None:
        return _by_picture(count, k, seed)
    names, kinds = np.unique(np.asarray(labels), return_inverse=True)
    counts = np.bincount(kinds, minlength=len(names))
    usable = np.random.default_rng(seed).permutation(np.flatnonzero(counts > 1))
    if len(usable) < _LABELS:
        raise RequestError(
            f"{len(usable)} labels have two pictures or more, and it takes {_LABELS} to hold some "
            "out; label more kinds of things, or train without labels"
        )
    held = max(_LABELS // 2, round(SHARE * len(usable)))
    rows = np.flatnonzero(np.isin(kinds, usable[held:]))
    rows = rows[np.argsort(kinds[rows], kind="stable")]
    starts = np.flatnonzero(np.diff(kinds[rows], prepend=-1))
    inside = np.where(np.isin(kinds, usable[:held]), kinds, OTHER)
    judged = np.flatnonzero(sample_by_label(inside, _JUDGED, seed))
    halves = _halves(kinds[judged], usable[:held], k)
    return Split(rows, np.append(starts, len(rows)), HeldOut(judged, False, halves))


def _by_picture(count: int, k: int, seed: int) -> Split:
    if count < _PICTURES:
        raise RequestError(
            f"{count} pictures can be read, and it takes {_PICTURES} to learn without labels; "
            "name more of them"
        )
    dealt = np.random.default_rng(seed).permutation(count)
    held = min(_COPIED, round(SHARE * count))
    rows, judged = np.sort(dealt[held:]), np.sort(dealt[:held])
    halves = _halves(np.repeat(judged, COPIES + 1), dealt[:held], k)
    return Split(rows, np.arange(len(rows) + 1), HeldOut(judged, True, halves))


def _halves(kinds: Kinds, dealt: Kinds, k: int) -> tuple[Fold, Fold]:
    """Every other kind asks; kinds (n,) are those of what is compared."""
    every = np.arange(len(kinds))
    one, other = (
        Fold(every, np.flatnonzero(np.isin(kinds, dealt[half::2])), kinds, k) for half in range(2)
    )
    return one, other
