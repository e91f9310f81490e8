"""Attempts of one piece of work that run at once, fail to read, or go on when all is over."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from math import comb
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from faults.checking import unlisted
from faults.folder import files_below

from lookalike.exact_neighbours import ExactNeighbours
from lookalike.images.decoding import Decoder
from lookalike.images.limits import ImageLimits
from lookalike.ivf.drawing import Draw, DrawTask, Span, draw
from lookalike.ivf.encoding import EncodeTask, encode
from lookalike.ivf.grouping import group
from lookalike.ivf.planner import plan
from lookalike.ivf.tasks import TrainTask, encode_tasks, group_tasks, train_index
from lookalike.ivf.trained_index import TrainedIndex
from lookalike.models.embedder import Embedder
from lookalike.models.features import Feature
from lookalike.pipelines.cli import main
from lookalike.recall.asking import Question, Rater
from lookalike.recall.spread import (
    CertifyTask,
    Inquiry,
    Laid,
    certify_index,
    deal,
    lay_out,
    shard_groups,
    take,
)
from lookalike.recall.truth import MergeTask, Truth, merge_parts
from lookalike.reconcile.assembling import ledger_of_run
from lookalike.reconcile.by_content import ByContent, Copies
from lookalike.reconcile.by_name import ByName
from lookalike.reconcile.copying import Copying
from lookalike.reconcile.dealing import Dealer, Touched
from lookalike.reconcile.renames import Renames
from lookalike.reconcile.settling import CONTENTS, COPIED, MOVED, NAMES, TOUCHED, Settling
from lookalike.records import SourceFile, Unit
from lookalike.sources.units import Units
from lookalike.sources.vector_tables import list_tables
from lookalike.store import shard_format, shards, snapshot
from lookalike.store.attempts import finished, named_files, recorded
from lookalike.store.compacting import compact, plan_compaction
from lookalike.store.converting import convert_shard, convert_tasks
from lookalike.store.durable import put_if_absent, read_json, write_bytes, write_file
from lookalike.store.exchange import Reference, references
from lookalike.store.files import HashedName
from lookalike.store.ledger import read_ledger
from lookalike.store.objects import open_store
from lookalike.store.proof import SearchTask, search_files
from lookalike.store.runs import Run
from lookalike.store.traces import Traces
from lookalike.unit_embedding import embed_unit
from lookalike.vector_faults import Rules
from lookalike.vector_units import ingest_unit
from tests import publishing
from tests.conftest import picture
from tests.days import METADATA, SCHEMA, File, Store
from tests.interleaving import Attempt, Runner, every_order, hidden, standing
from tests.scanning import cut_vectors, list_vectors
from tests.vector_files import write_vectors
from tests.vector_stores import clustered, make_store, trained

RUN = "0123456789abcdef"
NO_METADATA = pa.schema([])
Work = Callable[[str], dict[str, Any]]


# --- names and records ----------------------------------------------------------


def test_a_disk_that_fails_is_no_disk_without_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(source: object, target: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "link", broken)
    with pytest.raises(OSError, match=r"record: cannot be written: input/output error; see"):
        put_if_absent(tmp_path, "record", b"data")
    assert list(tmp_path.iterdir()) == []


def test_a_name_holds_the_hash_of_the_content(tmp_path: Path) -> None:
    name = HashedName("embeddings/00000007-run", ".parquet")
    found = write_bytes(tmp_path, name, b"data")
    digest = hashlib.sha256(b"data").hexdigest()
    assert found.path == f"embeddings/00000007-run-{digest[:16]}.parquet"
    assert write_bytes(tmp_path, name, b"data") == found
    assert write_bytes(tmp_path, name, b"other").path != found.path
    with write_file(tmp_path, name) as pending:
        pending.write(b"nobody needs it")
        pending.drop()
    assert len(list(tmp_path.rglob("*.*"))) == 2


def test_what_is_done_is_not_done_again(tmp_path: Path) -> None:
    task = SimpleNamespace(done="done.json")
    made = recorded(lambda task, store, rows: {"rows": rows})
    assert made(task, open_store(tmp_path), 3) == {"rows": 3}
    again = recorded(lambda task, store: pytest.fail("again"))
    assert again(task, open_store(tmp_path)) == {"rows": 3}
    with pytest.raises(RuntimeError, match=r"1 of 2 parts did not finish .*other\.json\)"):
        finished(open_store(tmp_path), ["done.json", "other.json"])


# --- every kind of work -------------------------------------------------------------------------


@dataclass
class Place:
    """A store with one piece of work to do.

    Attributes:
        store: Its root.
        run: The run that the work is of.
        record: Path of the work's record.
        work: Does it, on a machine of that name, and returns the record.
        read: What an attempt reads.
        fails: Whether an attempt that cannot read fails, and is made again; else it says so in what
            it writes.
        kept: What was in embeddings/ and index/ before.
    """

    store: Path
    run: Run
    record: str
    work: Work
    read: Path
    fails: bool = True

    def __post_init__(self) -> None:
        self.kept = self.shared()

    def shared(self) -> set[str]:
        """Files that outlive the run."""
        paths = (self.store.glob(f"{folder}/*") for folder in ("embeddings", "index"))
        return {str(path.relative_to(self.store)) for found in paths for path in found}


def embedding_shards(store: Path, vectors: np.ndarray, count: int = 2) -> list[dict[str, Any]]:
    """Lines of shards of given vectors."""
    schema, lines = shard_format.schema(vectors.shape[1], NO_METADATA, {}), []
    for number, rows in enumerate(np.array_split(vectors, count), start=1):
        with shards.open_shard(
            open_store(store), f"embeddings/{number}.parquet", schema, number
        ) as (
            writer,
            pending,
        ):
            for row, vector in enumerate(rows):
                values = {"uri": f"/{number}/{row}", "content_sha256": bytes([number]) * 32}
                writer.append(values, vector)
        lines.append(shards.shard_record(pending.finished, number, len(rows)))
    return lines


def started(store: Path) -> Run:
    run = Run(open_store(store), RUN)
    run.start()
    return run


def unit_of(run: Run) -> Unit:
    folder = f"{run.folder}/embedded"
    return Unit(0, 7, f"embeddings/00000007-{RUN}", f"{run.folder}/l/0", f"{folder}/0.json")


@pytest.fixture(scope="module")
def embedder(indexed: tuple[Path, Path]) -> Embedder:
    features = snapshot.read_manifest(open_store(indexed[0]))["features"]
    return Embedder([Feature.from_json(line) for line in features], indexed[0], "cosine")


@pytest.fixture(scope="module")
def decoders(embedder: Embedder) -> Iterator[dict[str, Decoder]]:
    """One for each machine."""
    found = {name: Decoder(embedder.sizes, ImageLimits()) for name in ("one", "other")}
    yield found
    for decoder in found.values():
        decoder.close()


@pytest.fixture(scope="module")
def trained_index() -> tuple[TrainedIndex, bytes, np.ndarray]:
    data, spec, vectors = trained(400, 24, nlist=8, nbits=4)
    return TrainedIndex(data, spec), data, vectors[:60]


SETTLING = ("deal", "touched", "contents", "names", "renames", "copy", "ledger", "duplicates")
KINDS = (
    "embed",
    "ingest",
    "compact",
    "convert",
    "draw",
    "train",
    "encode",
    "group",
    "merge",
    "ask",
    "rate",
    "certify",
    "search",
    *SETTLING,
)


@pytest.fixture(params=KINDS)
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Place]:
    """Makes a new place for a kind of work."""
    kind, count = request.param, [0]
    needs = {
        "embed": ("embedder", "decoders"),
        "encode": ("trained_index",),
        "group": ("trained_index",),
        **dict.fromkeys(SETTLING, ("settled",)),
    }
    given = [request.getfixturevalue(name) for name in needs.get(kind, ())]

    def make() -> Place:
        count[0] += 1
        store = tmp_path / f"{kind}-{count[0]}"
        store.mkdir()
        return MAKERS[kind](store, *given)

    return make


def embedding(store: Path, embedder: Embedder, decoders: dict[str, Decoder]) -> Place:
    run, sources = started(store), []
    for name in "abc":
        path = store / f"{name}.png"
        picture(ord(name)).resize((16, 16)).save(path)
        sources.append(SourceFile(str(path), path.stat().st_size, name))

    def work(machine: str) -> dict[str, Any]:
        return embed_unit(
            unit_of(run), open_store(store), sources, embedder, decoders[machine], NO_METADATA, {}
        )()

    return Place(store, run, unit_of(run).done, work, Path(sources[1].uri), fails=False)


def ingesting(store: Path) -> Place:
    run = started(store)
    path = write_vectors(store / "t.parquet", np.eye(5, dtype="f4"))
    tables = list_tables([str(path)], pytest.fail)
    listing, _ = list_vectors(open_store(store), f"{run.folder}/listing", tables, 20)
    units = cut_vectors(open_store(store), listing, f"{run.folder}/units", tables, 99)
    assert len(units) == 1

    def work(machine: str) -> dict[str, Any]:
        return ingest_unit(
            unit_of(run), open_store(store), units, Rules(5, "cosine"), NO_METADATA, {}
        )

    return Place(store, run, unit_of(run).done, work, path, fails=False)


@pytest.fixture(scope="module")
def settled(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Run]:
    """A store of two days, with all that settling them left."""
    root = tmp_path_factory.mktemp("settled")
    run = started(root)
    days = Store(root, runs=run.folder)
    days.run({"/b": File(1), "/c": File(2), "/d": File(4), "/e": File(2)})
    days.run({"/a": File(1), "/b": File(1), "/c": File(3, 1), "/new": File(4)})
    return root, run


def settling(store: Path, settled: tuple[Path, Run], kind: str) -> Place:
    """A task of settling: what it reads is there, its record is not."""
    shutil.copytree(settled[0], store, dirs_exist_ok=True)
    place, run = open_store(store), Run(open_store(store), RUN, settled[1].begun)
    day = f"{run.folder}/{0 if kind == 'contents' else 1}"
    of = Settling(**place.read_json(f"{day}/resolved/settling.json"))
    ledger = ledger_of_run(
        place, "snapshots/1", f"{day}/compared", f"{day}/resolved", [5, 6, 7], None
    )
    by_name = ByName(of, Copies.of([1], of.first_copy), NO_METADATA, ())

    def copy(number: int, pieces: list[Reference], machine: str) -> Mapping[str, Any]:
        labels = {**(SCHEMA.metadata or {}), b"lookalike.x": machine.encode()}  # so bytes differ
        copying = Copying(of, RUN, METADATA, SCHEMA.with_metadata(labels))
        return copying.take(number, pieces, place)

    takes: dict[str, tuple[str, str, str, Callable[..., Mapping[str, Any]]]] = {
        "touched": (f"{of.dealt}/000000", TOUCHED, of.record(TOUCHED, 0), Touched(of).take),
        "contents": (
            f"{of.dealt}/000000",
            CONTENTS,
            of.record("dealt/contents", 0),
            ByContent(of).take,
        ),
        "names": (f"{of.dealt}/contents/000000", NAMES, of.record("dealt/names", 0), by_name.take),
        "renames": (f"{of.dealt}/names/000000", MOVED, of.record(MOVED, 0), Renames(of).take),
        "copy": (f"{of.dealt}/names/000000", COPIED, of.record(COPIED, 0), copy),
        "duplicates": (
            f"{ledger.records}/ledger/000000",
            "",
            f"{ledger.records}/duplicates/000000.json",
            ledger.take,
        ),
    }
    work: Callable[[str], Mapping[str, Any]]
    if kind == "deal":
        read = place.read_json(f"{of.embedded}/000000.json")["ledger"]
        record, work = of.record("dealt", 0), lambda machine: Dealer(of).deal(0, place)
    elif kind == "ledger":
        read = place.read_json(of.record("dealt/names", 0))["file"]
        record, work = ledger.record(0), lambda machine: ledger.deal(0, place)
    else:
        dealt, side, record, take = takes[kind]
        found = place.read_json(f"{dealt}.json")
        pieces, read = [one for _, one in references(found, 0, (side,))], found["dealt"]
        assert pieces
        work = lambda machine: take(0, pieces, machine if kind == "copy" else place)  # noqa: E731
    for one in {path for path in named_files(place.read_json(record)) if kind == "copy"}:
        (store / one).unlink()
    (store / record).unlink()
    return Place(store, run, record, lambda machine: dict(work(machine)), store / read["path"])


def compacting(store: Path) -> Place:
    run, lines = started(store), embedding_shards(store, np.eye(6, dtype="f4"))
    deleted = np.array([1 << 32], dtype=np.int64)
    [task] = plan_compaction(lines, deleted, 9, RUN, run.folder)

    def work(machine: str) -> dict[str, Any]:
        return compact(task, open_store(store), deleted)

    return Place(store, run, task.done, work, store / lines[1]["path"])


def converting(store: Path) -> Place:
    run, lines = started(store), embedding_shards(store, np.eye(6, dtype="f4"))
    task, _ = convert_tasks(lines, RUN, run.folder)

    def work(machine: str) -> dict[str, Any]:
        return convert_shard(task, open_store(store), np.negative, 6, {"lookalike.x": machine})

    return Place(store, run, task.done, work, store / lines[0]["path"])


def encoding(store: Path, trained_index: tuple[TrainedIndex, bytes, np.ndarray]) -> Place:
    trained, _, vectors = trained_index
    run, lines = started(store), embedding_shards(store, vectors)
    done = f"{run.folder}/e/0.json"
    paths = tuple(line["path"] for line in lines)
    task = EncodeTask(0, paths, f"index/{RUN}-0", f"{run.folder}/truth/0", done, whole=True)

    def work(machine: str) -> dict[str, Any]:
        k = 3 if machine == "one" else 4  # so that bytes differ
        truth = ExactNeighbours(vectors[:5], np.arange(5) + (1 << 32), k, "cosine")
        return encode(task, open_store(store), trained, truth)

    return Place(store, run, task.done, work, store / lines[1]["path"])


def grouping(store: Path, trained_index: tuple[TrainedIndex, bytes, np.ndarray]) -> Place:
    trained, _, vectors = trained_index
    run, lines = started(store), embedding_shards(store, vectors)
    tasks = encode_tasks([[line["path"]] for line in lines], run.folder, "")
    nothing = ExactNeighbours(np.empty((0, 24)), [], 1, "cosine")
    parts = [encode(task, open_store(store), trained, nothing)["shard"]["path"] for task in tasks]
    [task] = group_tasks(
        open_store(store), tasks, trained, 1, run.folder, f"index/{RUN}-{{}}".format
    )

    def work(machine: str) -> dict[str, Any]:
        return group(task, open_store(store), trained)

    return Place(store, run, task.done, work, store / parts[0])


def drawing(store: Path) -> Place:
    run, lines = started(store), embedding_shards(store, np.eye(6, dtype="f4"))
    spans, place = tuple(map(Span.of, lines)), f"{run.folder}/drawn/0"

    def work(machine: str) -> dict[str, Any]:
        seed = 1 if machine == "one" else 2  # so that bytes differ
        draws = (Draw(seed, 5), Draw(seed + 2, 6))
        return draw(DrawTask(0, spans, 6, draws, place, f"{place}.json"), open_store(store))

    return Place(store, run, f"{place}.json", work, store / lines[1]["path"])


def training(store: Path) -> Place:
    run, vectors = started(store), clustered(64, 8)
    lines, spec = embedding_shards(store, vectors), plan(64, 8, "cosine", {"kind": "ivf_sq"})
    place, draws = f"{run.folder}/drawn/0", (Draw(1, 5), Draw(0, 64))
    task = DrawTask(0, tuple(map(Span.of, lines)), 8, draws, place, f"{place}.json")
    drawn = draw(task, open_store(store))["drawn"]
    truth = Truth.of(vectors[:5], np.arange(5) + (1 << 32), np.zeros(5, "u8"), 0, "cosine")
    queries = write_bytes(store, f"{run.folder}/known.npz", truth.to_bytes()).path

    def work(machine: str) -> dict[str, Any]:
        other = replace(spec, seed=int(machine == "one"))  # so that bytes differ
        done = f"{run.folder}/trained.json"
        return train_index(TrainTask(other, (task.done,), queries, done), open_store(store))

    return Place(store, run, f"{run.folder}/trained.json", work, store / drawn[1]["path"])


def merging(store: Path) -> Place:
    run, rows, paths = started(store), np.eye(6, dtype="f4"), []
    asked = ExactNeighbours(rows[:2], [0, 1], 3, "cosine")
    queries = write_bytes(store, f"{run.folder}/queries.npz", asked.to_bytes()).path
    for ids in ([0, 1, 2], [3, 4], [5]):
        found = ExactNeighbours(rows[:2], [0, 1], 3, "cosine")
        found.update(ids, rows[ids])
        name = HashedName(f"{run.folder}/truth/{ids[0]}", ".npz")
        paths.append(write_bytes(store, name, found.to_bytes()).path)

    def work(machine: str) -> dict[str, Any]:
        parts = tuple(paths if machine == "one" else paths[:2])  # so that bytes differ
        place = f"{run.folder}/merged/0"
        return merge_parts(MergeTask(0, queries, parts, place, f"{place}.json"), open_store(store))

    return Place(store, run, f"{run.folder}/merged/0.json", work, store / paths[1])


def inquired(store: Path) -> tuple[Run, Inquiry, Laid]:
    """Something to ask an index of three shards, whose lists were learned."""
    options = {"kind": "ivf_pq", "nlist": 6, "shards": 3, "code_bytes": 4}
    ids, vectors, manifest = make_store(store, clustered(150, 16), options=options)
    run, truth = started(store), ExactNeighbours(vectors[:4], ids[:4], 12, "cosine")
    truth.update(ids, vectors)
    manifest = {**manifest, "counts": {"vectors": 150}}
    laid = lay_out(open_store(store), f"{run.folder}/certify", manifest, truth, 10)
    lists = Rater(laid.index(open_store(store), ()), 150, truth, 10).lists
    with open_store(store).write(f"{run.folder}/certify/lists.npy") as pending:
        np.save(pending.file, lists)
    laid = replace(laid, lists=f"{run.folder}/certify/lists.npy")
    questions = (Question(2, 20, (1, 10)), Question(4, 15, (10,), exact=True))
    groups = tuple(shard_groups(manifest, 1))
    return run, Inquiry(laid, f"{run.folder}/asked", groups, questions, 4), laid


def asking(store: Path) -> Place:
    run, inquiry, _ = inquired(store)

    def work(machine: str) -> dict[str, Any]:
        less = inquiry.questions[: 1 + (machine == "one")]  # so that bytes differ
        return deal(1, open_store(store), replace(inquiry, questions=less))

    done = f"{inquiry.folder}/dealt/000001.json"
    return Place(store, run, done, work, store / inquiry.groups[1][0])


def rating(store: Path) -> Place:
    run, inquiry, _ = inquired(store)
    place = open_store(store)
    records = [deal(number, place, inquiry) for number in range(3)]
    pieces = [piece for n in range(3) for part, piece in references(records[n], n) if part == 1]

    def work(machine: str) -> dict[str, Any]:
        return take(1, pieces, open_store(store), inquiry)

    read = store / records[2]["dealt"]["path"]
    return Place(store, run, f"{inquiry.folder}/taken/000001.json", work, read)


def certifying(store: Path) -> Place:
    run, _, laid = inquired(store)
    task = CertifyTask(laid, 0.5, None, f"{run.folder}/certified.json")

    def work(machine: str) -> dict[str, Any]:
        return certify_index(task, open_store(store))

    return Place(store, run, task.done, work, store / laid.manifest)


def searching(store: Path) -> Place:
    run, traces = started(store), Traces(["/a/name"], [bytes(32)], [])
    (store / "index").mkdir()
    (store / "index" / "one").write_bytes(b"in it is /a/name, and more")
    path = write_bytes(store, f"{run.folder}/traces.json", traces.to_bytes()).path
    task = SearchTask(0, ("index/one",), path, f"{run.folder}/searched/0.json")

    def work(machine: str) -> dict[str, Any]:
        return search_files(task, open_store(store))

    return Place(store, run, task.done, work, store / path)


MAKERS: dict[str, Callable[..., Place]] = {
    "embed": embedding,
    "ingest": ingesting,
    "compact": compacting,
    "convert": converting,
    "draw": drawing,
    "train": training,
    "encode": encoding,
    "group": grouping,
    "merge": merging,
    "ask": asking,
    "rate": rating,
    "certify": certifying,
    "search": searching,
    **{kind: partial(settling, kind=kind) for kind in SETTLING},
}

# Of how many turns an attempt is: one for each file that it names, and its end; one more where it
# fails at first. Mostly 4 and 3; what comes of a table that cannot be read is a ledger alone.
LONGER = ("draw", "train", "encode")
SHORTER = ("rate", "certify", "search")  # they write a record alone
ORDERS = {
    "embed": comb(8, 4),
    "ingest": comb(7, 3),
    **dict.fromkeys(LONGER, comb(9, 4)),
    **dict.fromkeys(SHORTER, comb(5, 2)),
    "names": comb(9, 4),
    "ledger": comb(9, 4),
    "renames": comb(5, 2),
}


def check(place: Place, runners: list[Runner]) -> None:
    """One attempt's record counts for all, and all that it names is as it says."""
    record = read_json(place.store / place.record)
    for runner in runners:
        assert runner.error is None, runner.error
        assert runner.result == record, f"{runner.result} is not what counts: {record}"
    check_files(place.store, record)
    place.run.sweep()
    named = {path for path in named_files(record) if path.startswith(("embeddings", "index"))}
    assert place.shared() == place.kept | named
    check_files(place.store, record)


def check_files(store: Path, record: dict[str, Any]) -> None:
    named = [one for one in record.values() if isinstance(one, dict) and "sha256" in one]
    for line in (*named, *record.get("drawn", ()), *record.get("files", ())):
        if line:
            data = (store / line["path"]).read_bytes()
            assert (len(data), hashlib.sha256(data).hexdigest()) == (line["bytes"], line["sha256"])
    if "ledger" in record:
        rows = list(read_ledger(store / record["ledger"]["path"]))
        assert len(rows) == record["counts"]["listed"]
        stored = {}
        if record["shard"]:
            table = pq.read_table(store / record["shard"]["path"], columns=["id", "uri"])
            stored = dict(zip(table["id"].to_pylist(), table["uri"].to_pylist(), strict=True))
        assert {row.id: row.uri for row in rows if row.id is not None} == stored


@pytest.mark.slow
def test_in_every_order_one_attempt_counts(make: Callable[[], Place]) -> None:
    """One of two meets an error when it reads, which is over before the other does."""
    places: list[Place] = []

    def attempts() -> list[Attempt]:
        place = make()
        places.append(place)
        return [
            Attempt(lambda: place.work("one"), lambda: hidden(place.read), retried=place.fails),
            Attempt(lambda: place.work("other")),
        ]

    orders = every_order(attempts, lambda runners: check(places[-1], runners))
    assert orders == ORDERS.get(places[0].store.name.partition("-")[0], comb(7, 3))


def test_one_that_goes_on_when_all_is_over_changes_nothing(make: Callable[[], Place]) -> None:
    """It stands before each of its changes while the stage ends, and while the scratch goes."""
    for end in ("stage", "run"):
        place, step, ended = make(), 1, False
        while not ended:
            with standing([Attempt(lambda place=place: place.work("one"))], opening=True) as [late]:
                for _ in range(step):
                    late.go_on()
                ended = late.ended
                record = place.work("other")
                place.run.sweep()
                if end == "run":
                    publish(place.store, record)
                    place.run.finish()
            if end == "stage":
                check(place, [late])
            else:
                check_gone(place, record)
            place, step = make(), step + 1


def publish(store: Path, record: dict[str, Any]) -> None:
    """A snapshot that lists the record's files that outlive the run, and those from before."""
    publishing.publish(open_store(store), {"name": "one", "counts": {}, "files": lasting(record)})


def lasting(record: dict[str, Any]) -> list[dict[str, Any]]:
    """Lines of the files that outlive the run."""
    return [record["shard"]] if "shard" in record else record.get("files", [])


def check_gone(place: Place, record: dict[str, Any]) -> None:
    """What is published stands; what came late is read by nobody and goes with the next run."""
    lines = lasting(record)
    files = {line["path"] for line in lines if not line["path"].startswith("templates")}
    check_files(place.store, {"files": lines})
    assert Run(open_store(place.store), RUN).plan() is None
    again = Run(open_store(place.store), RUN)
    again.start()
    assert open_store(place.store).files(f"runs/{RUN}") == []
    again.finish()
    assert place.shared() == files | place.kept


# --- a whole run --------------------------------------------------------------------------------


def index(tables: Path, store: Path, floor: float) -> int:
    config = tables.parent / "config.yaml"
    config.write_text(
        f"publish: {{min_recall: {floor}}}\nindex: {{queries: 20}}\nrunner: {{workers: 1}}\n"
    )
    flags = ["--config", config, "--embeddings", tables, "--store", store]
    return main(["index", *map(str, flags)])


@pytest.mark.parametrize("changed", [False, True])
def test_attempts_of_a_run_that_went_on_without_them(changed: bool, tmp_path: Path) -> None:
    """They stand before each of their changes when the run is continued, or begins anew."""
    tables, store = tmp_path / "tables", tmp_path / "store"
    rows = np.random.default_rng(0).standard_normal((300, 8)).astype("f4")
    table = write_vectors(tables / "t.parquet", rows)
    assert index(tables, store, 1.0) == 3  # not published, and to be continued
    [name] = [path.name for path in (store / "runs").iterdir() if path.is_dir()]
    run = Run(open_store(store), name)
    plan = run.plan()
    assert plan is not None
    names = run.names(plan)
    unit, units = names.unit(0), Units(names.cut_in, names.cut)

    def late() -> dict[str, Any]:
        return ingest_unit(
            unit,
            open_store(store),
            units,
            Rules(8, "cosine"),
            NO_METADATA,
            {"lookalike.x": "late"},
        )

    # as if each had begun before the unit was done
    attempts = [Attempt(late, lambda: hidden(store / unit.done)) for _ in range(4)]
    with standing(attempts, opening=True) as runners:
        for steps, runner in enumerate(runners, start=1):
            for _ in range(steps):
                assert not runner.ended
                runner.go_on()
        if changed:
            write_vectors(table, rows[:200])
        assert index(tables, store, 0.0) == 0
        published = snapshot.read_manifest(open_store(store))
        assert not (store / "runs" / name).exists()
    assert any(runner.error is None for runner in runners)
    assert unlisted(
        open_store(store), files_below(store)
    )  # they left something, which nobody reads
    assert main(["verify", "--store", str(store)]) == 0
    assert snapshot.read_manifest(open_store(store)) == published
    assert published["counts"]["vectors"] == (200 if changed else 300)
    [line] = snapshot.files_of(published, "embedding")
    assert pq.read_schema(store / line["path"]).metadata.get(b"lookalike.x") is None
    assert index(tables, store, 0.0) == 0
    assert snapshot.current(open_store(store)) == published["name"]
    assert main(["gc", "--store", str(store)]) == 0
    assert unlisted(open_store(store), files_below(store)) == []
    assert main(["verify", "--store", str(store)]) == 0
