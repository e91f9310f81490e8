"""Pictures as queries: read from a path, bytes or an array, and embedded as the stored ones were.

TensorFlow and Pillow are loaded only when a picture is embedded.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from lookalike.errors import RequestError, UnreachableError, one_line
from lookalike.metrics import Vectors
from lookalike.outcomes import Pixels
from lookalike.store.storage import read_bytes

if TYPE_CHECKING:
    from lookalike.models.features import Embedder

Image = str | os.PathLike[str] | bytes | npt.NDArray[np.uint8]

_BATCH = 32


def image_name(image: Image, row: int) -> str:
    """The path or URI of a query picture, else "image:<row>"."""
    return os.fspath(image) if isinstance(image, (str, os.PathLike)) else f"image:{row}"


def load_embedder(store: Path, manifest: Mapping[str, Any]) -> Embedder:
    """The models that made a snapshot's vectors.

    Raises:
        RequestError: The snapshot was made with another preprocessing, or without models.
    """
    from lookalike.models.features import Embedder, stored_features

    return Embedder(stored_features(store, manifest), store, manifest["metric"])


def embed_images(images: Sequence[Image], embedder: Embedder) -> Vectors:
    """Vectors (n, dim) of pictures.

    Raises:
        RequestError: A picture cannot be read or embedded; it names the picture and the reason.
    """
    vectors = np.empty((len(images), embedder.dim), dtype=np.float32)
    for start in range(0, len(images), _BATCH):
        batch = images[start : start + _BATCH]
        prepared = [
            _prepared(image, image_name(image, row), embedder)
            for row, image in enumerate(batch, start)
        ]
        block, usable = embedder.embed(prepared)
        if not usable.all():
            row = start + int(np.argmin(usable))
            raise RequestError(
                f"{image_name(images[row], row)}: the models give it a vector that is zero or not "
                "finite, so it has no neighbours"
            )
        vectors[start : start + len(batch)] = block
    return vectors


def _prepared(image: Image, name: str, embedder: Embedder) -> tuple[Pixels, ...]:
    """The models' inputs, made as those of the stored pictures were."""
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
            raise RequestError(
                f"{name}: an array must be uint8 of shape (h, w, 3), got {image.dtype} of shape "
                f"{image.shape}"
            )
        return embedder.prepare(image)
    from lookalike.pictures.images import NotAnImage, Rejected, prepare

    try:
        data = image if isinstance(image, bytes) else read_bytes(name)
        return prepare(data, name, sizes=embedder.sizes).arrays
    except NotAnImage as error:
        raise RequestError(f"{name}: not an image") from error
    except Rejected as error:
        detail = f": {error.detail}" if error.detail else ""
        raise RequestError(f"{name}: {error.reason}{detail}") from error
    except UnreachableError:
        raise
    except OSError as error:
        raise RequestError(f"{name}: unreadable: {error.strerror or one_line(error)}") from error
