"""Small runs for faults to happen in: a first night and a second, of pictures and of vectors."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from lookalike.models.quiet_tf import tf

_PICTURES = """
features: [{name: low, handle: '%s'}]
engine: tensorflow
runner: {workers: 1}
embed: {unit_files: 3}
"""
_VECTORS = """
index: {kind: ivf_pq, nlist: 4, code_bytes: 4, queries: 20}
publish: {min_recall: 0.0}
runner: {workers: 1}
embed: {unit_files: 120}
"""
_LONG_AGO_NS = 1_700_000_000 * 10**9  # no file changes while it is listed


@dataclass
class Scenario:
    """Sources of one kind, which change from the first night to the second.

    Attributes:
        name: Of the kind.
        folder: Where sources and config lie.
        change: Makes the sources those of the second night.
    """

    name: str
    folder: Path
    change: Callable[[], None]

    def arguments(self, store: str) -> list[object]:
        """The command on a store of that name, the same on both nights."""
        flag = "--images" if self.name == "pictures" else "--embeddings"
        sources, config = self.folder / "sources", self.folder / "config.yaml"
        return ["index", "--config", config, flag, sources, "--store", store]


def pictures(folder: Path) -> Scenario:
    """Seven pictures, a copy, a reject and a sidecar; one is edited, one goes, one is renamed."""
    sources = folder / "sources"
    sources.mkdir(parents=True)
    _save_model(folder / "model")
    (folder / "config.yaml").write_text(_PICTURES % (folder / "model"))
    for number in range(7):
        _picture(sources / f"{number}.png", number)
    shutil.copy(sources / "2.png", sources / "copy of 2.png")
    (sources / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 not much of a picture")
    (sources / "notes.json").write_text("{}")
    _age(sources)

    def change() -> None:
        _picture(sources / "0.png", 100)
        (sources / "1.png").unlink()
        (sources / "2.png").unlink()  # the copy is left
        (sources / "3.png").rename(sources / "was 3.png")
        _picture(sources / "new.png", 101)
        _age(sources, days=1)

    return Scenario("pictures", folder, change)


def vectors(folder: Path) -> Scenario:
    """Two tables in an IVF-PQ index; rows of the second are edited, go and come."""
    sources = folder / "sources"
    sources.mkdir(parents=True)
    (folder / "config.yaml").write_text(_VECTORS)
    rows = np.random.default_rng(0).standard_normal((400, 8)).astype(np.float32)
    names = [f"/pictures/{number:03d}.jpg" for number in range(400)]
    _table(sources / "one.parquet", names[:300], rows[:300])
    _table(sources / "two.parquet", names[300:], rows[300:])
    _age(sources)

    def change() -> None:
        edited = rows[300:].copy()
        edited[:5] *= -1
        _table(sources / "two.parquet", [*names[300:390], "/pictures/new.jpg"], edited[:91])
        _age(sources, days=1)

    return Scenario("vectors", folder, change)


def _save_model(folder: Path) -> None:
    """A model that is loaded at once: the picture, much smaller."""

    class Thumbnail(tf.Module):  # type: ignore[misc]
        @tf.function(input_signature=[tf.TensorSpec([None, 8, 8, 3], tf.float32)])
        def __call__(self, images: Any) -> Any:
            return tf.reshape(tf.nn.avg_pool2d(images, 2, 2, "VALID"), [-1, 48])

    tf.saved_model.save(Thumbnail(), str(folder))


def _picture(path: Path, seed: int) -> None:
    values = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    Image.fromarray(values).resize((40, 32), Image.Resampling.BICUBIC).save(path)


def _table(path: Path, names: list[str], rows: np.ndarray) -> None:
    embedding = pa.FixedSizeListArray.from_arrays(pa.array(rows.ravel()), rows.shape[1])
    pq.write_table(pa.table({"uri": names, "embedding": embedding}), path)


def _age(folder: Path, days: int = 0) -> None:
    for path in folder.iterdir():
        if days == 0 or path.stat().st_mtime_ns > _LONG_AGO_NS + 10**9:
            time = _LONG_AGO_NS + days * 86_400 * 10**9
            os.utime(path, ns=(time, time))


MAKERS = {"pictures": pictures, "vectors": vectors}
