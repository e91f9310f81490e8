"""Encode embedding shards into parts, group those by list; what was trained comes as files."""

from __future__ import annotations

import apache_beam as beam

from lookalike.ivf.encoding import EncodeTask
from lookalike.ivf.grouping import GroupTask
from lookalike.ivf.index_work import EncodeWork, GroupWork
from lookalike.store.objects import open_store
from lookalike.transforms.tasks import DoTasks


@beam.typehints.with_input_types(EncodeTask)
@beam.typehints.with_output_types(int)
class EncodeParts(DoTasks):
    """Encode groups of embedding shards, each into one part of the index and of the truth.

    PCollection[EncodeTask] -> PCollection[int]: the number of each finished task, of whose attempts
    the first one's record counts.
    """

    def __init__(self, store: str, trained: str, queries: str = "", threads: int = 1) -> None:
        """Encode with a trained index.

        Args:
            store: The store's root, reachable from every worker.
            trained: The trained index's name: the sha256 of its bytes, which are checked.
            queries: The held-out queries, relative to the store; "" where no truth is wanted.
            threads: Faiss threads per worker process.

        Raises:
            RequestError: Something of it is not in the store.
        """
        super().__init__(EncodeWork(open_store(store), trained, threads, queries))


@beam.typehints.with_input_types(GroupTask)
@beam.typehints.with_output_types(int)
class GroupLists(DoTasks):
    """Write index shards, each one range of lists from all parts.

    PCollection[GroupTask] -> PCollection[int]: the number of each finished task, of whose attempts
    the first one's record counts.
    """

    def __init__(self, store: str, trained: str) -> None:
        """Group by the lists of a trained index.

        Args:
            store: The store's root, reachable from every worker.
            trained: The trained index's name: the sha256 of its bytes, which are checked.

        Raises:
            RequestError: It is not in the store.
        """
        super().__init__(GroupWork(open_store(store), trained))
