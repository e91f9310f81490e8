"""The tasks of an index: training, and which parts and shards to make (`ivf.index_work`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lookalike.exact_neighbours import ExactNeighbours
from lookalike.ivf.drawing import Draw, Drawn
from lookalike.ivf.encoding import EncodeTask, fitness_of
from lookalike.ivf.grouping import GroupTask, list_ranges, list_sizes
from lookalike.ivf.spec import IndexSpec
from lookalike.ivf.train import train
from lookalike.ivf.trained_index import TrainedIndex, write_trained_index
from lookalike.store.attempts import Record, finished, recorded
from lookalike.store.objects import Store

MEASURED_ROWS = (
    4096  # on which a trained index's error is measured, of rows that it was not trained on
)


@dataclass(frozen=True)
class TrainTask:
    """What to train on; paths are relative to the store.

    Attributes:
        samples: Records of the tasks that drew samples, of which the last is to be trained on.
        queries: The truth's file: its queries are held out.
    """

    spec: IndexSpec
    samples: tuple[str, ...]
    queries: str
    done: str
    number: int = 0

    @property
    def memory(self) -> int:
        """Bytes that the task needs: the rotated sample twice, and blocks."""
        spec = self.spec
        return 8 * spec.train_rows * spec.rotation_dim + 2 * spec.trained_bytes() + (1 << 30)


@recorded
def train_index(task: TrainTask, store: Store) -> Record:
    """Train, commit what came of it and, last, the record, which is returned.

    The record holds `template` (its name), `files` (lines for a manifest) and `training`. Of
    several attempts the first one's record counts (see `store.attempts`).
    """
    spec = task.spec
    held_out = ExactNeighbours.from_bytes(store.read_bytes(task.queries))
    records = finished(store, task.samples)
    wanted = Draw(spec.seed, spec.train_rows)
    last = len(records[0]["drawn"]) - 1 if records else 0
    sample = Drawn(store, records, last, wanted, spec.dim, held_out.query_ids)
    data, training = train(spec, sample)
    if spec.kind != "exact":
        measured = fitness_of(TrainedIndex(data, spec), held_out.queries, MEASURED_ROWS)
        training["held_out_error"] = measured.measures()["quantisation_error"]
        training["held_out_standard_error"] = measured.standard_error()
    name, paths = write_trained_index(store, spec, data, training)
    files = [{**store.record(path).to_json(), "kind": "template"} for path in paths]
    return {"template": name, "files": files, "training": training}


def encode_tasks(
    groups: Sequence[Sequence[str]], folder: str, shard: str, removed: str = ""
) -> list[EncodeTask]:
    """A part of the index for each group of embedding shards; of one alone the finished shard.

    Args:
        groups: Paths of embedding shards, relative to the store.
        folder: Of everything but that finished shard.
        shard: The finished shard's name but for the hash, where there is but one group.
        removed: A .npy file of ids (n,) int64, ascending, to leave out; "" for none.
    """
    whole = len(groups) == 1
    return [
        EncodeTask(
            number,
            tuple(group),
            output=shard if whole else f"{folder}/parts/{number:05d}",
            truth=f"{folder}/truth/{number:05d}",
            done=f"{folder}/encoded/{number:05d}.json",
            whole=whole,
            removed=removed,
        )
        for number, group in enumerate(groups)
    ]


def group_tasks(
    store: Store,
    encoded: Sequence[EncodeTask],
    trained: TrainedIndex,
    shards: int,
    folder: str,
    name: Callable[[int], str],
) -> list[GroupTask]:
    """An index shard for each range of lists, about equally long; none where a part is whole.

    Args:
        store: The store's root.
        encoded: Tasks that are done: their parts are looked into.
        trained: Of the parts.
        shards: How many, at most.
        folder: Of the records.
        name: Gives a shard's name but for the hash, by its number.
    """
    if any(task.whole for task in encoded):
        return []
    parts = tuple(one["shard"]["path"] for one in finished(store, [task.done for task in encoded]))
    ranges = list_ranges(list_sizes(store, parts, trained), shards)
    return [
        GroupTask(number, first, last, parts, name(number), f"{folder}/grouped/{number:05d}.json")
        for number, (first, last) in enumerate(ranges)
    ]
