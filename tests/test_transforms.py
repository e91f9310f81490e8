"""`EmbedImages` in a Beam pipeline of one's own."""

from __future__ import annotations

import gc
import multiprocessing
import os
import tarfile
import time
import weakref
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow.parquet as pq
import pytest
from apache_beam.coders import registry
from apache_beam.io.parquetio import WriteToParquet
from apache_beam.runners.portability.fn_api_runner.fn_runner import FnApiRunner
from apache_beam.testing.test_pipeline import TestPipeline as _TestPipeline
from apache_beam.transforms.display import DisplayData
from apache_beam.transforms.window import SlidingWindows
from apache_beam.typehints import TypeCheckError
from apache_beam.utils.shared import Shared

from lookalike.embed_spec import FAILED_SCHEMA, EmbedSpec
from lookalike.errors import RequestError
from lookalike.models.embedder import Embedder
from lookalike.pipelines.engine import run
from lookalike.pipelines.runner import RunnerSpec
from lookalike.store import snapshot
from lookalike.store.objects import open_store
from lookalike.store.runs import UnitNames
from lookalike.store.shards import iter_blocks, iter_rows
from lookalike.transforms.embed import EmbedImages, EmbedUnits
from lookalike.transforms.encode import EncodeParts, GroupLists

Records = list[dict[str, Any]]


@pytest.fixture(scope="module")
def spec(indexed: tuple[Path, Path]) -> EmbedSpec:
    return EmbedSpec.from_store(indexed[0])


def stored(store: Path) -> dict[str, dict[str, Any]]:
    """The store's rows by uri."""
    rows: dict[str, dict[str, Any]] = {}
    for line in snapshot.files_of(snapshot.read_manifest(open_store(store)), "embedding"):
        vectors = np.concatenate([block for _, block in iter_blocks(store / line["path"])])
        columns = ["uri", "content_sha256", "width", "height", "format", "bytes"]
        for row, vector in zip(iter_rows(store / line["path"], columns), vectors, strict=True):
            rows[row["uri"]] = {**row, "embedding": vector}
    return rows


NOTES: list[Any] = []  # of pipelines in this process


def note(value: Any, name: str) -> None:
    NOTES.append((name, value))


def as_it_is(value: Any) -> Any:
    return value


def outcomes(
    elements: list[Any], transform: EmbedImages, of: Any = Any
) -> tuple[list[Any], list[Any], Any]:
    """What becomes of elements: embedded, failed, and the counters by name."""
    noted: dict[str, list[Any]] = {"embedded": [], "failed": []}
    pipeline = _TestPipeline(runner=FnApiRunner())
    given = pipeline | beam.Create(elements) | beam.Map(as_it_is).with_output_types(of)
    outputs = given | transform
    for name, output in outputs.items():
        _ = output | f"Note {name}" >> beam.Map(note, name)
    NOTES.clear()
    result = pipeline.run()
    result.wait_until_finish()
    for name, value in NOTES:
        noted[name].append(value)
    counters = result.metrics().query()["counters"]
    return noted["embedded"], noted["failed"], {c.key.metric.name: c.result for c in counters}


@pytest.mark.parametrize("batch", [1, 4, 100])
def test_every_file_comes_out_once_with_the_row_that_a_store_has(
    indexed: tuple[Path, Path], spec: EmbedSpec, batch: int
) -> None:
    store, folder = indexed
    known = stored(store)
    uris = sorted(str(path) for path in folder.rglob("*") if path.is_file())
    uris.append(str(folder / "missing.jpg"))
    embedded, failed, counters = outcomes(uris, EmbedImages(spec, batch))
    assert sorted(one["uri"] for one in embedded) == sorted(u for u in uris if u.endswith(".png"))
    for one in embedded:
        assert (one["width"], one["height"], one["format"]) == (64, 48, "PNG")
        if one["uri"] in known:  # the copy is not in the store
            expected = known[one["uri"]]
            np.testing.assert_allclose(one.pop("embedding"), expected.pop("embedding"), atol=1e-6)
            assert one == expected
    assert {(Path(one["uri"]).name, one["status"], one["reason"]) for one in failed} == {
        ("broken.jpg", "rejected", "truncated"),
        ("missing.jpg", "rejected", "unreadable"),
        ("notes.json", "ignored", "no_image"),
    }
    assert counters["embedded-files"] == 21
    assert counters["rejected-files"] == 2
    assert counters["ignored-files"] == 1
    assert counters["msec"] > 0


def test_keys_and_uris_come_back_as_they_were_given(
    indexed: tuple[Path, Path], spec: EmbedSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(indexed[1])
    given = [
        (1, "first/0.png"),
        ((2, "two"), "./first/0.png"),
        (None, f"file://{indexed[1]}/first/0.png"),
        ({"a": [1]}, "first/0.png"),
        ("first/1.png", "missing.png"),
        (b"\xff", "broken.jpg"),
        (0.5, "first"),
        ("", ""),
        ("nul", "first/\0.png"),
        ("long", "x" * 9000),
    ]
    embedded, failed, counters = outcomes(given, EmbedImages(spec, 8))
    back = [(key, record["uri"]) for key, record in [*embedded, *failed]]
    assert sorted(map(repr, back)) == sorted(map(repr, given))
    assert len(embedded) == 4
    assert len({record["content_sha256"] for _, record in embedded}) == 1
    reasons = {record["uri"][:9]: record["reason"] for _, record in failed}
    assert reasons.pop("broken.jp") == "truncated"
    assert set(reasons.values()) == {"unreadable"}
    assert counters["embedded-files"] == 3  # "first/0.png" is one file, whoever asks for it


def test_what_is_no_name_fails_alone(indexed: tuple[Path, Path], spec: EmbedSpec) -> None:
    picture = str(indexed[1] / "first" / "0.png")
    given = [picture, None, 7, b"first/0.png", ("k", None), ("k", 7), (1, 2, 3), Path(picture)]
    embedded, failed, counters = outcomes(given, EmbedImages(spec))
    assert [one["uri"] for one in embedded] == [picture]
    assert counters["rejected-files"] == len(failed) == 7
    details = [(one[1] if isinstance(one, tuple) else one)["detail"] for one in failed]
    assert all("needs a path or URI" in detail for detail in details)
    assert any("got ('k', None)" in detail for detail in details)


def test_members_of_a_tar_by_the_names_that_a_store_has(
    indexed: tuple[Path, Path], spec: EmbedSpec, tmp_path: Path
) -> None:
    with tarfile.open(tmp_path / "shard.tar", "w") as tar:
        for number in range(3):
            tar.add(indexed[1] / "second" / f"{number}.png", f"{number}.png")
    uris = [f"{tmp_path}/shard.tar#{number}.png" for number in range(4)]
    embedded, failed, _ = outcomes(uris, EmbedImages(spec))
    known = stored(indexed[0])
    for one in embedded:
        same = known[str(indexed[1] / "second" / one["uri"].rpartition("#")[2])]
        np.testing.assert_allclose(one["embedding"], same["embedding"], atol=1e-6)
    assert len(embedded) == 3
    assert [one["detail"] for one in failed] == ["no such member"]


def test_no_files_give_no_output(spec: EmbedSpec) -> None:
    assert outcomes([], EmbedImages(spec))[:2] == ([], [])


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_records_fit_the_schemas_as_they_come(
    indexed: tuple[Path, Path], spec: EmbedSpec, tmp_path: Path, dtype: str
) -> None:
    spec = EmbedSpec(spec.features, spec.store, dtype=dtype)
    uris = [str(path) for path in indexed[1].rglob("*.*")]
    with _TestPipeline(runner=FnApiRunner()) as pipeline:
        outputs = pipeline | beam.Create(uris) | EmbedImages(spec)
        _ = outputs["embedded"] | WriteToParquet(str(tmp_path / "vectors"), spec.schema)
        _ = outputs["failed"] | "Failed" >> WriteToParquet(str(tmp_path / "failed"), FAILED_SCHEMA)
    [written] = tmp_path.glob("vectors*")
    table, known = pq.read_table(written), stored(indexed[0])
    assert table.schema.equals(spec.schema)
    assert table.schema.metadata[b"lookalike.model_fingerprint"]
    kind = table.schema.field("embedding").type
    assert (kind.list_size, kind.value_type.bit_width) == (spec.dim, int(dtype[-2:]))
    assert table.num_rows == 21
    for row in table.to_pylist():
        if row["uri"] in known:
            vector = np.array(row["embedding"], np.float32)
            np.testing.assert_allclose(vector, known[row["uri"]]["embedding"], atol=1e-3)
    [written] = tmp_path.glob("failed*")
    assert pq.read_table(written)["status"].to_pylist().count("rejected") == 1


def test_types_are_told_to_the_pipeline(spec: EmbedSpec) -> None:
    """A record's coder keeps the array and costs little more; a key's is that of its type."""
    pipeline = beam.Pipeline(runner=FnApiRunner())
    with pytest.raises(TypeCheckError, match="Wrong: expected str"):
        _ = pipeline | "Numbers" >> beam.Create([1]) | "Wrong" >> EmbedImages(spec)
    plain = pipeline | "Plain" >> beam.Create(["a"]) | "One" >> EmbedImages(spec)
    keyed = pipeline | "Keyed" >> beam.Create([(1, "a")]) | "Two" >> EmbedImages(spec)
    vector = np.arange(spec.dim, dtype=np.float32)
    record = {"uri": "a", "content_sha256": b"x" * 32, "embedding": vector}
    for outputs, value in ((plain, record), (keyed, (1, record))):
        for output in outputs.values():
            coder = registry.get_coder(output.element_type)
            data = coder.encode(value)
            assert len(data) < vector.nbytes + 400
            back = coder.decode(data)
            back = back[1] if isinstance(back, tuple) else back
            assert back["embedding"].dtype == np.float32
            assert (back.pop("embedding") == vector).all()
            assert back == {"uri": "a", "content_sha256": b"x" * 32}
    key = registry.get_coder(keyed["embedded"].element_type).key_coder()
    assert key.is_deterministic()  # so that records can be grouped by it


def test_it_is_shown_on_an_engines_page(spec: EmbedSpec) -> None:
    shown = DisplayData.create_from(EmbedImages(spec, 7)).items
    assert {item.key: item.value for item in shown} == {
        "models": "builtin:color-texture",
        "store": spec.store,
        "metric": "cosine",
        "dtype": "float32",
        "batch": 7,
        "max_wait": 10.0,
    }


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch": 0}, "batch: needs a whole number from 1, got 0"),
        ({"batch": True}, "batch: needs a whole number from 1, got True"),
        ({"batch": 2.5}, "batch: needs a whole number from 1, got 2.5"),
        ({"batch": "8"}, "batch: needs a whole number from 1, got '8'"),
        ({"max_wait": -1}, "max_wait: needs a number of seconds from 0, got -1"),
        ({"max_wait": float("nan")}, "max_wait: needs a number of seconds from 0, got nan"),
        ({"spec": "photos.store"}, "spec: needs an EmbedSpec, got 'photos.store'"),
    ],
)
def test_wrong_arguments_are_told_at_once(
    spec: EmbedSpec, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(RequestError, match=message):
        EmbedImages(**{"spec": spec, **arguments})


NAMES = UnitNames("runs/r/b", "r", 0, (0, 1))


def test_units_are_written_into_any_store(spec: EmbedSpec) -> None:
    pytest.importorskip("obstore")
    assert EmbedUnits(replace(spec, store="s3://b/x"), NAMES).spec.store == "s3://b/x"
    with pytest.raises(RequestError, match="spec: needs an EmbedSpec, got None"):
        EmbedUnits(None, NAMES)  # type: ignore[arg-type]


def test_tasks_of_another_kind_are_told_at_once(spec: EmbedSpec) -> None:
    trained = snapshot.read_manifest(open_store(Path(spec.store)))["index"]["template"]
    given = beam.Pipeline(runner=FnApiRunner()) | beam.Create(["a unit"])
    encode, group = EncodeParts(spec.store, trained), GroupLists(spec.store, trained)
    for transform in (EmbedUnits(spec, NAMES), encode, group):
        with pytest.raises(TypeCheckError, match=r"expected .*, got <class 'str'>"):
            _ = given | transform


def slowly(path: str) -> str:
    time.sleep(0.2)
    NOTES.append(("in", path))
    return path


def test_files_do_not_wait_for_ever(indexed: tuple[Path, Path], spec: EmbedSpec) -> None:
    """Records leave while more elements come, though the batch is not full."""
    paths = [str(indexed[1] / "first" / f"{number}.png") for number in range(4)]
    NOTES.clear()
    with _TestPipeline(runner=FnApiRunner()) as pipeline:
        created = pipeline | beam.Create(paths, reshuffle=False)
        # In sliding windows no Reshuffle comes between.
        uris = created | beam.Map(slowly) | beam.WindowInto(SlidingWindows(60, 60))
        records = (uris | EmbedImages(spec, 64, max_wait=0.1))["embedded"]
        _ = records | beam.Map(lambda record: record["uri"]) | beam.Map(note, "out")
    assert NOTES.index(("out", paths[0])) < NOTES.index(("in", paths[3]))
    assert len(NOTES) == 8


def test_a_model_that_is_gone_ends_the_pipeline(
    indexed: tuple[Path, Path], tmp_path: Path, pictures: Callable[..., Path]
) -> None:
    spec = EmbedSpec.from_handles(["builtin:color-texture"], tmp_path / "models")
    (tmp_path / "models").rename(tmp_path / "elsewhere")
    before = children()  # of other tests
    pipeline = _TestPipeline(runner=FnApiRunner())
    uris = pipeline | beam.Create([str(pictures(1) / "000.jpg")])
    _ = uris | EmbedImages(spec)
    with pytest.raises(Exception, match=r"no saved_model\.pb"):
        pipeline.run().wait_until_finish()
    assert children() <= before


def children() -> set[int]:
    """Processes that this one started and that live."""
    found = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(FileNotFoundError, ProcessLookupError):  # others end meanwhile
            parent = stat.read_text().rpartition(")")[2].split()[1]
            if int(parent) == os.getpid():
                found.add(int(stat.parent.name))
    return found


def embedders() -> list[Embedder]:
    gc.collect()
    return [one for one in gc.get_objects() if isinstance(one, Embedder)]


def note_models(record: dict[str, Any]) -> None:
    NOTES.append([weakref.ref(one) for one in embedders()])


@pytest.mark.slow
def test_models_are_shared_and_let_go_of(indexed: tuple[Path, Path], spec: EmbedSpec) -> None:
    uris = [str(path) for path in (indexed[1] / "first").iterdir()]
    Shared().acquire(set)  # Beam keeps the last one that was acquired, whatever it is
    NOTES.clear()
    before, running = len(embedders()), children()
    with _TestPipeline(runner=FnApiRunner()) as pipeline:
        for name in ("One", "Two"):
            given = pipeline | f"Create{name}" >> beam.Create(uris)
            same = EmbedSpec.from_store(indexed[0])
            outputs = given | f"Embed{name}" >> EmbedImages(same)
            _ = outputs["embedded"] | f"Look{name}" >> beam.Map(note_models)
    assert {len(alive) for alive in NOTES} == {before + 1}
    assert children() == running  # the decoders have ended
    Shared().acquire(set)
    assert len(embedders()) == before


@pytest.mark.slow
def test_worker_processes_leave_nothing(indexed: tuple[Path, Path], spec: EmbedSpec) -> None:
    uris = [str(path) for path in (indexed[1] / "first").iterdir()]

    def build(pipeline: beam.Pipeline) -> None:
        _ = pipeline | beam.Create(uris) | EmbedImages(spec)

    before = children()
    run(build, RunnerSpec(workers=2))
    assert children() == before
    assert multiprocessing.active_children() == []
