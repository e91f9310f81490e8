"""The model handler, in RunInference on Beam's local engine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import apache_beam as beam
import numpy as np
import pytest
from apache_beam.ml.inference.base import RunInference
from apache_beam.runners.portability.fn_api_runner.fn_runner import FnApiRunner
from apache_beam.testing.util import assert_that
from PIL import Image

from lookalike.embed_spec import EmbedSpec
from lookalike.errors import RequestError
from lookalike.search.asked import asked_images
from lookalike.search.query_images import embed_images
from lookalike.transforms.inference import EmbedModelHandler
from tests.conftest import picture


@pytest.mark.slow
def test_pictures_become_the_vectors_that_queries_have(tmp_path: Path) -> None:
    spec = EmbedSpec.from_handles("builtin:color-texture", tmp_path / "models")
    picture(1).save(tmp_path / "a.png")
    given: list[Any] = [(tmp_path / "a.png").read_bytes(), np.asarray(picture(2))]
    embedder = spec.load()
    expected = embed_images(asked_images(given), lambda: embedder, embedder.dim).vectors

    def check(found: list[Any]) -> None:
        assert len(found) == 2
        for one in found:
            row = 0 if isinstance(one.example, bytes) else 1
            np.testing.assert_allclose(one.inference, expected[row], atol=1e-6)
        assert {type(one.example) for one in found} == {bytes, np.ndarray}

    with beam.Pipeline(runner=FnApiRunner()) as pipeline:
        found = pipeline | beam.Create(given) | RunInference(EmbedModelHandler(spec))
        assert_that(found, check)


def test_what_is_no_picture_goes_out_beside(tmp_path: Path) -> None:
    spec = EmbedSpec.from_handles("builtin:color-texture", tmp_path / "models")
    handler = EmbedModelHandler(spec, batch=1)
    black = np.asarray(Image.new("RGB", (9, 9), "white"))
    with beam.Pipeline(runner=FnApiRunner()) as pipeline:
        given: list[Any] = [b"no picture", black]
        inference = RunInference(handler).with_exception_handling()
        good, bad = pipeline | beam.Create(given) | inference
        assert_that(good, lambda found: _is([len(one.inference) for one in found], [1511]), "good")
        assert_that(
            bad.failed_inferences, lambda found: _is([one[0] for one in found], [[given[0]]]), "bad"
        )


def _is(found: Any, expected: Any) -> None:
    assert found == expected


def test_batches_and_specs_are_checked(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="spec: needs an EmbedSpec, got 'builtin:photo'"):
        EmbedModelHandler("builtin:photo")  # type: ignore[arg-type]
    spec = EmbedSpec.from_handles("builtin:color-texture", tmp_path / "models")
    handler = EmbedModelHandler(spec, batch=5)
    assert handler.batch_elements_kwargs() == {"min_batch_size": 1, "max_batch_size": 5}
    assert handler.get_num_bytes([b"four", np.zeros((2, 2, 3), np.uint8)]) == 16
