"""Pictures as queries: they are embedded exactly as the stored pictures were.

TensorFlow and Pillow are loaded only when a picture is embedded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from lookalike.errors import RequestError, UnreachableError, one_line
from lookalike.images.functions import FunctionFailedError
from lookalike.metrics import Vectors
from lookalike.search.asked import AskedImage, is_pillow_image
from lookalike.store.objects import Store
from lookalike.store.storage import read_bytes

if TYPE_CHECKING:
    from lookalike.models.features import Embedder, Inputs

_BATCH = 32


def load_embedder(store: Store, manifest: Mapping[str, Any]) -> Embedder:
    """The models that made a snapshot's vectors.

    Raises:
        RequestError: The snapshot was made with another preprocessing, or without models.
    """
    from lookalike.models.features import Embedder, folders_of, stored_features
    from lookalike.models.projection import stored_projection

    features, projection = stored_features(store, manifest), stored_projection(manifest)
    folder = store.local_tree(folders_of(features, projection))
    return Embedder(features, folder, manifest["metric"], projection=projection)


def embed_images(
    images: Iterable[AskedImage], load: Callable[[], Embedder], dim: int
) -> tuple[list[str], Vectors]:
    """Names (n,) and vectors (n, dim) of pictures, some of which are in memory at a time.

    Args:
        images: The pictures.
        load: Gives the models; not called where there is no picture.
        dim: Components of a vector.

    Raises:
        RequestError: A picture cannot be read or embedded; it names the picture and the reason.
    """
    names: list[str] = []
    blocks = [np.empty((0, dim), dtype=np.float32)]
    pictures = iter(images)
    while batch := list(islice(pictures, _BATCH)):
        embedder = load()
        block, usable = embedder.embed([_prepared(image, embedder) for image in batch])
        if not usable.all():
            raise RequestError(
                f"{batch[int(np.argmin(usable))].name}: the models give it a vector that is zero "
                "or not finite, so it has no neighbours"
            )
        names += [image.name for image in batch]
        blocks.append(block)
    return names, np.concatenate(blocks)


def _prepared(image: AskedImage, embedder: Embedder) -> Inputs:
    """The models' inputs, made as those of the stored pictures were."""
    from lookalike.images.given import pixels_of_array, pixels_of_image
    from lookalike.images.preparing import NotAnImage, Rejected

    name, content = image.name, image.content
    try:
        if is_pillow_image(content):
            return embedder.prepare(pixels_of_image(content))
        if isinstance(content, np.ndarray):
            return embedder.prepare(pixels_of_array(content))
        data = content if isinstance(content, bytes) else read_bytes(content)
        return embedder.prepare_file(data, name)
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
