"""The transforms in a Beam pipeline of one's own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import apache_beam as beam
import numpy as np
import pytest
from apache_beam.runners.portability.fn_api_runner.fn_runner import FnApiRunner
from apache_beam.testing.test_pipeline import TestPipeline as _TestPipeline
from apache_beam.testing.util import assert_that

from lookalike.embedding import Embedded, Failed
from lookalike.models.features import Feature
from lookalike.store import snapshot
from lookalike.store.shards import iter_blocks, iter_rows
from transforms.embed import EmbedImages, EmbedSpec


def spec_of(store: Path) -> EmbedSpec:
    features = snapshot.read_manifest(store)["features"]
    return EmbedSpec(tuple(Feature.from_json(line) for line in features), str(store))


def stored_vectors(store: Path) -> dict[str, np.ndarray]:
    vectors: dict[str, np.ndarray] = {}
    for line in snapshot.files_of(snapshot.read_manifest(store), "embedding"):
        names = [row["uri"] for row in iter_rows(store / line["path"], ["uri"])]
        rows = np.concatenate([block for _, block in iter_blocks(store / line["path"])])
        vectors |= dict(zip(names, rows, strict=True))
    return vectors


@pytest.mark.parametrize("batch", [1, 4, 100])
def test_every_file_comes_out_once_with_the_vector_a_store_would_hold(
    indexed: tuple[Path, Path], batch: int
) -> None:
    store, folder = indexed
    known = stored_vectors(store)
    uris = sorted(str(path) for path in folder.rglob("*") if path.is_file())
    uris.append(str(folder / "missing.jpg"))

    def embedded(found: list[Embedded]) -> None:
        images = {uri for uri in uris if uri.endswith(".png")}
        assert sorted(one.file.uri for one in found) == sorted(images)
        for one in found:
            assert (one.width, one.height, one.format) == (64, 48, "PNG")
            if one.file.uri in known:  # the copy is not in the store
                np.testing.assert_allclose(one.vector, known[one.file.uri], atol=1e-6)

    def failed(found: list[Failed]) -> None:
        assert {(Path(one.file.uri).name, one.status, one.reason) for one in found} == {
            ("broken.jpg", "rejected", "truncated"),
            ("missing.jpg", "rejected", "unreadable"),
            ("notes.json", "ignored", ""),
        }

    pipeline = _TestPipeline(runner=FnApiRunner())
    outputs = pipeline | beam.Create(uris) | EmbedImages(spec_of(store), batch)
    assert_that(outputs["embedded"], embedded, label="Embedded")
    assert_that(outputs["failed"], failed, label="Failed")
    result = pipeline.run()
    result.wait_until_finish()
    counters = {
        counter.key.metric.name: counter.result for counter in result.metrics().query()["counters"]
    }
    assert counters["embedded-files"] == 21
    assert counters["rejected-files"] == 2
    assert counters["ignored-files"] == 1
    assert counters["msec"] > 0


def test_no_files_give_no_output(indexed: tuple[Path, Path]) -> None:
    def nothing(found: list[object]) -> None:
        assert found == []

    with _TestPipeline(runner=FnApiRunner()) as pipeline:
        uris = pipeline | beam.Create([], reshuffle=False)
        outputs = uris | EmbedImages(spec_of(indexed[0]))
        assert_that(outputs["embedded"], nothing, label="Embedded")
        assert_that(outputs["failed"], nothing, label="Failed")


def test_a_model_that_is_not_there_ends_the_pipeline(
    indexed: tuple[Path, Path], tmp_path: Path, pictures: Callable[..., Path]
) -> None:
    features = spec_of(indexed[0]).features
    pipeline = _TestPipeline(runner=FnApiRunner())
    uris = pipeline | beam.Create([str(pictures(1) / "000.jpg")])
    _ = uris | EmbedImages(EmbedSpec(features, str(tmp_path / "no-store")))
    with pytest.raises(Exception, match=r"no saved_model\.pb"):
        pipeline.run().wait_until_finish()
