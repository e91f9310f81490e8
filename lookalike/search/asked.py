"""What a `Searcher` may be asked: pictures, vectors and ids in all the forms that people have.

What cannot be taken is refused in one line that says what can. Nothing is guessed: a picture is
never taken for the name of a file, nor a text for a number.
"""

from __future__ import annotations

import operator
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import IO, Any, Protocol

import numpy as np
import numpy.typing as npt

from lookalike.distances import Ids, Vectors
from lookalike.errors import RequestError, one_line


class AsArray(Protocol):
    """What turns into an array of NumPy: a tensor, say."""

    def __array__(self) -> Any:
        """As an array."""


class AsPixels(Protocol):
    """What shows its pixels as an array: an image of Pillow's."""

    @property
    def __array_interface__(self) -> dict[str, Any]:
        """As NumPy describes it."""


Image = str | os.PathLike[str] | bytes | bytearray | memoryview | IO[bytes] | AsArray | AsPixels
Images = Image | Iterable[Image]
Exclude = Iterable[int] | Iterable[Iterable[int]] | AsArray | None

IMAGE_FORMS = (
    "a path or URI, a file's bytes, a file object opened for bytes, a Pillow image, or an array "
    "(h, w), (h, w, 3) or (h, w, 4) of uint8 or of floats from 0 to 1"
)
_NUMBERS = "biuf"  # NumPy's kinds


@dataclass(frozen=True)
class AskedImage:
    """One picture that was asked for.

    Attributes:
        name: Its path or URI, else "image:<row>".
        content: A path or URI (str), the bytes of a file, an array of pixels, or a Pillow image.
    """

    name: str
    content: Any


# --- pictures ---------------------------------------------------------------------------------


def asked_images(images: Any) -> Iterator[AskedImage]:
    """The pictures that were asked for, one after the other: of one, or of any iterable.

    Raises:
        RequestError: One is of no form that can be read, or what holds them cannot be iterated.
    """
    if _is_one(images):
        images = [images]
    elif (array := _array("images", images)) is not None and array.ndim:
        images = array  # of names, or of pictures
    elif isinstance(images, Mapping) or not _is_iterable(images):
        raise RequestError(f"images: needs pictures, each {IMAGE_FORMS}; got {_shown(images)}")
    for row, image in enumerate(images):
        yield _asked_image(image, row)


def is_pillow_image(value: object) -> bool:
    """Whether it is an image of Pillow's, which need not be loaded to know."""
    module = sys.modules.get("PIL.Image")
    return module is not None and isinstance(value, module.Image)


def _is_one(images: Any) -> bool:
    """Whether it is one picture, not several."""
    if isinstance(images, (str, os.PathLike)) or is_pillow_image(images) or _is_file(images):
        return True
    if (array := _array("images", images)) is not None:
        # A row of bytes is a file's; of anything else, such as names, an iterable.
        return array.ndim in (2, 3) or (array.ndim == 1 and array.dtype == np.uint8)
    return _buffer(images) is not None


def _asked_image(image: Any, row: int) -> AskedImage:
    name = f"image:{row}"
    image = image.as_py() if hasattr(image, "as_py") else image  # one of Arrow's values
    if isinstance(image, (str, os.PathLike)):
        path = str(os.fsdecode(image))
        if not path or "\0" in path:
            raise RequestError(f"{name}: {path!r} is no path")
        return AskedImage(path, path)
    if is_pillow_image(image):
        return AskedImage(name, image)
    if _is_file(image):
        return AskedImage(name, _read(image, name))
    array = _array(name, image)
    if array is not None and not (array.ndim == 1 and array.dtype == np.uint8):
        return AskedImage(name, array)
    data = _buffer(image if array is None else np.ascontiguousarray(array))
    if data is None:
        raise RequestError(f"{name}: needs {IMAGE_FORMS}; got {_shown(image)}")
    if not data:
        raise RequestError(f"{name}: there are no bytes in it")
    return AskedImage(name, data)


def _is_file(value: Any) -> bool:
    return callable(getattr(value, "read", None))


def _read(file: Any, name: str) -> bytes:
    """What a file object gives, from where it stands."""
    try:
        data = file.read()
    except (OSError, ValueError) as error:  # a closed one, one for writing, a broken disk
        raise RequestError(f"{name}: the file object cannot be read: {one_line(error)}") from error
    if isinstance(data, str):
        raise RequestError(f"{name}: the file object gives text; open it for bytes: open(…, 'rb')")
    content = _buffer(data)
    if content is None:
        raise RequestError(f"{name}: the file object gives {_shown(data)} in place of bytes")
    if not content:
        raise RequestError(
            f"{name}: the file object gives no bytes; it is read from where it stands: seek(0)"
        )
    return content


def _buffer(value: Any) -> bytes | None:
    """The bytes of what has some (bytes, bytearray, memoryview, mmap, …); None of all else."""
    if isinstance(value, bytes):
        return bytes(value)
    if isinstance(value, np.generic):  # a number shows its bytes too
        return None
    try:
        return memoryview(value).tobytes()
    except (TypeError, BufferError):
        return None


def _array(name: str, value: Any) -> npt.NDArray[Any] | None:
    """What is an array, of NumPy or of what turns into one (a tensor, a Series); None of all else.

    Raises:
        RequestError: Part of it is masked, or it does not turn.
    """
    if isinstance(value, (np.generic, memoryview)) or not hasattr(value, "__array__"):
        return None
    if isinstance(value, np.ma.MaskedArray) and np.ma.is_masked(value):
        raise RequestError(f"{name}: some values are masked; fill them first: array.filled(…)")
    try:
        return np.asarray(value)
    except Exception as error:  # tensors on another device raise errors of their own
        raise RequestError(
            f"{name}: a {type(value).__name__} does not turn into an array: {one_line(error)}"
        ) from error


# --- vectors ----------------------------------------------------------------------------------


def asked_vectors(vectors: Any, dim: int) -> Vectors:
    """The vectors that were asked for, (n, dim) float32: of one, or of any iterable.

    Raises:
        RequestError: They are not numbers, or of another shape.
    """
    if isinstance(vectors, (str, bytes, bytearray, Mapping)):
        raise RequestError(f"query vectors are not numbers: {_shown(vectors)}")
    if not hasattr(vectors, "__array__") and not isinstance(vectors, memoryview):
        if not _is_iterable(vectors):
            raise RequestError(f"query vectors are not numbers: {_shown(vectors)}")
        vectors = [row.as_py() if hasattr(row, "as_py") else row for row in vectors]
    found = _numbers(vectors)
    if found.ndim == 1 and found.shape[0] in (0, dim):
        found = found.reshape(-1, dim)
    if found.ndim != 2 or found.shape[1] != dim:
        raise RequestError(
            f"query vectors have shape {found.shape}, the store needs (n, {dim}), or ({dim},) "
            "for one"
        )
    with np.errstate(over="ignore"):  # what becomes infinite is refused as such
        return found.astype(np.float32)


def _numbers(values: Any) -> npt.NDArray[Any]:
    """An array of numbers, also from a row of rows."""
    try:
        array = _array("query vectors", values)
        array = np.asarray(values) if array is None else array
        if array.dtype.kind == "O":  # rows that NumPy does not join, or numbers as objects
            array = np.asarray([_row(row) for row in array])
    except (TypeError, ValueError) as error:
        if isinstance(error, RequestError):
            raise
        what = f"query vectors are not numbers of one shape: {one_line(error)}"
        raise RequestError(what) from error
    if array.dtype.kind not in _NUMBERS:
        raise RequestError(f"query vectors are not numbers: they are {array.dtype}")
    return array


def _row(row: Any) -> Any:
    if isinstance(row, np.ndarray) and row.dtype.kind == "O":
        return row.tolist()
    if row is None or isinstance(row, (str, bytes, Mapping)):
        raise RequestError(f"query vectors are not numbers: {_shown(row)}")
    return row if isinstance(row, (int, float)) or hasattr(row, "__array__") else list(row)


# --- ids --------------------------------------------------------------------------------------


def asked_ids(name: str, ids: Any) -> Ids:
    """Ids (n,) int64 from any iterable of whole numbers.

    Raises:
        RequestError: There is something else among them.
    """
    array = _array(name, ids)
    ids = ids if array is None else array
    if isinstance(ids, (str, bytes, Mapping)) or not _is_iterable(ids):
        raise RequestError(f"{name}: needs whole numbers, the ids of rows; got {_shown(ids)}")
    if array is not None and array.ndim == 1 and array.dtype.kind in "iu":
        return array.astype(np.int64)
    found = []
    for one in ids:
        one = one.as_py() if hasattr(one, "as_py") else one
        try:
            if isinstance(one, bool):
                raise TypeError
            found.append(operator.index(one))
        except TypeError:
            raise RequestError(
                f"{name}: needs whole numbers, the ids of rows; got {_shown(one)}"
            ) from None
    try:
        return np.array(found, dtype=np.int64)
    except OverflowError:
        raise RequestError(f"{name}: an id is beyond 64 bits: {max(found, key=abs)}") from None


def asked_exclusions(exclude: Any, queries: int) -> Ids:
    """Ids to leave out, (queries, m) int64, padded with -1.

    Args:
        exclude: None, ids for every query, or as many iterables of ids as there are queries.
        queries: How many there are.

    Raises:
        RequestError: There are not as many iterables as queries, or what is no id among them.
    """
    if exclude is None:
        return np.empty((queries, 0), dtype=np.int64)
    array = _array("exclude", exclude)
    exclude = exclude if array is None else array
    if isinstance(exclude, (str, bytes, Mapping)) or not _is_iterable(exclude):
        raise RequestError(f"exclude: needs ids, or ids for each query; got {_shown(exclude)}")
    given: Any = list(exclude) if array is None else array
    if not len(given):
        return np.empty((queries, 0), dtype=np.int64)
    if not _is_iterable(given[0]):
        flat = np.unique(asked_ids("exclude", given))
        return np.repeat(flat[None, :], queries, axis=0)
    rows = [np.unique(asked_ids("exclude", row)) for row in given]
    if len(rows) != queries:
        raise RequestError(f"exclude has {len(rows)} sequences of ids for {queries} queries")
    padded = np.full((queries, max(len(row) for row in rows)), -1, dtype=np.int64)
    for output, row in zip(padded, rows, strict=True):
        output[: len(row)] = row
    return padded


def _is_iterable(value: Any) -> bool:
    if isinstance(value, np.ndarray | np.generic):
        return value.ndim > 0
    return isinstance(value, Iterable) or hasattr(value, "__getitem__")


def _shown(value: Any) -> str:
    return f"{type(value).__name__} {value!r:.60}"
