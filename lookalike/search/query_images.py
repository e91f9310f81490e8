"""Pictures as queries: they are embedded exactly as the stored pictures were.

TensorFlow and Pillow are loaded only when a picture is embedded.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from lookalike.errors import RequestError, UnreachableError, one_line
from lookalike.images.cropping import Crop
from lookalike.images.functions import FunctionFailedError
from lookalike.search.asked import AskedImage, is_pillow_image
from lookalike.search.queries import Queries
from lookalike.store.forgetting import meanings
from lookalike.store.manifest import Manifest
from lookalike.store.objects import Store
from lookalike.store.storage import read_bytes

if TYPE_CHECKING:
    from lookalike.models.embedder import Embedder, Inputs

_BATCH = 32


def load_embedder(store: Store, manifest: Manifest) -> Embedder:
    """The models that made a snapshot's vectors.

    Raises:
        RequestError: The snapshot was made with another preprocessing, or without models.
    """
    from lookalike.models.embedder import Embedder
    from lookalike.models.features import folders_of, stored_features
    from lookalike.models.projection import stored_projection

    features, projection = stored_features(store, manifest), stored_projection(manifest)
    folder = store.local_tree(folders_of(features, projection))
    return Embedder(features, folder, manifest["metric"], projection=projection)


def embed_images(
    images: Iterable[AskedImage],
    load: Callable[[], Embedder],
    dim: int,
    crop: Crop | None = None,
) -> Queries:
    """Pictures as queries, some of which are in memory at a time.

    Args:
        images: The pictures.
        load: Gives the models; not called where there is no picture.
        dim: Components of a vector.
        crop: The part of each picture to take, where that is not all.

    Raises:
        RequestError: A picture cannot be read, cropped or embedded; it names the picture and the
            reason.
    """
    names: list[str] = []
    uris: list[str | None] = []
    hashes: list[bytes | None] = []
    blocks = [np.empty((0, dim), dtype=np.float32)]
    pictures = iter(images)
    while batch := list(islice(pictures, _BATCH)):
        embedder = load()
        prepared, digests = zip(*(_prepared(image, embedder, crop) for image in batch), strict=True)
        block, usable = embedder.embed(prepared)
        if not usable.all():
            raise RequestError(
                f"{batch[int(np.argmin(usable))].name}: the models give it a vector that is zero "
                "or not finite, so it has no neighbours"
            )
        names += [image.name for image in batch]
        uris += [
            meanings(image.content)[-1] if isinstance(image.content, str) else None
            for image in batch
        ]
        hashes += digests
        blocks.append(block)
    return Queries(names, np.concatenate(blocks), uris, hashes)


def _prepared(
    image: AskedImage, embedder: Embedder, crop: Crop | None
) -> tuple[Inputs, bytes | None]:
    """The models' inputs, made as those of the stored pictures were; sha256 of a file's bytes."""
    from lookalike.images.given import pixels_of_array, pixels_of_image
    from lookalike.images.rejections import NotAnImage, Rejected

    name, content = image.name, image.content
    try:
        if is_pillow_image(content) or isinstance(content, np.ndarray):
            array = isinstance(content, np.ndarray)
            pixels = pixels_of_array(content) if array else pixels_of_image(content)
            return embedder.prepare(crop.of(pixels) if crop else pixels), None
        data = content if isinstance(content, bytes) else read_bytes(content)
        return embedder.prepare_file(data, name, crop), hashlib.sha256(data).digest()
    except FunctionFailedError as error:
        raise RequestError(f"{name}: model_failed: {error}") from error
    except NotAnImage as error:
        raise RequestError(f"{name}: not an image") from error
    except Rejected as error:
        detail = f": {error.detail}" if error.detail else ""
        raise RequestError(f"{name}: {error.reason}{detail}") from error
    except UnreachableError:
        raise
    except OSError as error:
        raise RequestError(f"{name}: unreadable: {error.strerror or one_line(error)}") from error
    except RequestError:
        raise
    except ValueError as error:
        raise RequestError(f"{name}: {one_line(error, 500)}") from error
