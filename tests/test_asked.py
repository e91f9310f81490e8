"""What a `Searcher` may be asked: inputs and what comes of them, row by row."""

from __future__ import annotations

import array
import io
import mmap
import re
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

import lookalike
from lookalike import RequestError, Searcher
from lookalike.whole_numbers import whole_number
from tests.vector_stores import clustered, make_store


@pytest.fixture(scope="module")
def opened(indexed: tuple[Path, Path]) -> tuple[Searcher, Path]:
    """A searcher and one of its pictures, which no other equals."""
    store, folder = indexed
    return lookalike.open(store), folder / "first" / "7.png"


def pixels(path: Path) -> np.ndarray:
    return np.array(Image.open(path))


def mapped(path: Path) -> mmap.mmap:
    with open(path, "rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


class Tensor:
    """What turns into an array and is none, as tensors are."""

    def __init__(self, values: np.ndarray) -> None:
        self.values = values

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        return self.values.astype(dtype or self.values.dtype)


class OnADevice(Tensor):
    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        raise TypeError("can't convert cuda:0 device type tensor to numpy; use Tensor.cpu()")


class Named:
    """A path object of somebody else's."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __fspath__(self) -> bytes:
        return bytes(self.path)


OPEN: list[Any] = []


def to_be_closed(path: Path) -> Any:
    OPEN.append(open(path, "rb"))  # noqa: SIM115
    return OPEN[-1]


def generated(path: Path) -> Iterator[Path]:
    yield path


def masked(path: Path) -> np.ma.MaskedArray:
    return np.ma.masked_greater(pixels(path), 200)


# What is asked for, made of a picture's path; how many answers there are, each the picture itself.
IMAGES: dict[str, tuple[Callable[[Path], Any], int]] = {
    "a path": (lambda path: path, 1),
    "a text": (str, 1),
    "a text of NumPy": (lambda path: np.str_(path), 1),
    "a path object of bytes": (Named, 1),
    "bytes": (lambda path: path.read_bytes(), 1),
    "a bytearray": (lambda path: bytearray(path.read_bytes()), 1),
    "a memoryview": (lambda path: memoryview(path.read_bytes()), 1),
    "an array of bytes": (lambda path: array.array("B", path.read_bytes()), 1),
    "a mapped file": (mapped, 1),
    "a buffer of Arrow's": (lambda path: pa.py_buffer(path.read_bytes()), 1),
    "encoded bytes as an array": (lambda path: np.frombuffer(path.read_bytes(), np.uint8), 1),
    "an open file": (lambda path: to_be_closed(path), 1),
    "a file in memory": (lambda path: io.BytesIO(path.read_bytes()), 1),
    "a Pillow image": (Image.open, 1),
    "a Pillow image, loaded": (lambda path: Image.open(path).convert("RGBA"), 1),
    "an array": (pixels, 1),
    "an array with alpha": (
        lambda path: np.dstack([pixels(path), np.full((48, 64), 255, "u1")]),
        1,
    ),
    "float32 from 0 to 1": (lambda path: (pixels(path) / 255).astype("f4"), 1),
    "float64 from 0 to 1": (lambda path: pixels(path) / 255, 1),
    "float64 of the other byte order": (lambda path: (pixels(path) / 255).astype(">f8"), 1),
    "an array that is not contiguous": (lambda path: pixels(path)[::-1][::-1], 1),
    "a tensor": (lambda path: Tensor(pixels(path)), 1),
    "[a path]": (lambda path: [path], 1),
    "[a Pillow image]": (lambda path: [Image.open(path)], 1),
    "[an open file, bytes]": (lambda path: [to_be_closed(path), path.read_bytes()], 2),
    "a tuple": (lambda path: (path, str(path), pixels(path)), 3),
    "a generator": (generated, 1),
    "a map": (lambda path: map(Image.open, [path, path]), 2),
    "the keys of a dictionary": (lambda path: {path: 1}.keys(), 1),
    "an array of names": (lambda path: np.array([str(path)] * 2), 2),
    "an array of objects": (lambda path: np.array([path, str(path)], dtype=object), 2),
    "a batch of arrays": (lambda path: np.stack([pixels(path)] * 3), 3),
    "a batch as a tensor": (lambda path: Tensor(np.stack([pixels(path)] * 2)), 2),
    "a column of Arrow's": (lambda path: pa.array([str(path)] * 2), 2),
    "a column of bytes": (lambda path: pa.chunked_array([[path.read_bytes()]]), 1),
    "more than a batch": (lambda path: [path] * 70, 70),
    "[]": (lambda path: [], 0),
    "()": (lambda path: (), 0),
    "an empty generator": (lambda path: iter(()), 0),
    "an empty array": (lambda path: np.empty(0), 0),
    "an empty batch": (lambda path: np.empty((0, 4, 4, 3), np.uint8), 0),
    "an empty column": (lambda path: pa.array([], pa.string()), 0),
}

# What is asked for, and the one line that comes of it.
NO_IMAGES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "a number": (lambda path: 5, "images: needs pictures, each a path or URI, .*; got int 5$"),
    "a dictionary": (lambda path: {"a": path}, "images: needs pictures, .*; got dict "),
    "an object": (lambda path: SimpleNamespace(), "images: needs pictures, .* got SimpleNamespace"),
    "[None]": (lambda path: [None], "image:0: needs a path or URI, .*; got NoneType None$"),
    "[a path, nan]": (lambda path: [path, float("nan")], "image:1: needs .*; got float nan$"),
    "[[a path]]": (lambda path: [[path]], "image:0: needs a path or URI, .*; got list "),
    "[a number]": (lambda p: [np.int64(3)], r"image:0: needs a path .* got int64 np.int64\(3\)$"),
    "[True]": (lambda path: [True], "image:0: needs a path or URI, .*; got bool True$"),
    "no path": (lambda path: "", "image:0: '' is no path"),
    "a path with a zero": (lambda path: ["a\0b"], r"image:0: 'a\\x00b' is no path"),
    "a folder": (lambda path: path.parent, "first: unreadable: Is a directory"),
    "no such file": (lambda path: path.with_name("none.png"), "none.png: unreadable: No such file"),
    "no bytes": (lambda path: b"", "image:0: there are no bytes in it"),
    "bytes of no image": (lambda path: [b"hello"], "image:0: not an image"),
    "a name as bytes": (lambda path: bytes(path), "image:0: not an image"),
    "half a file": (lambda path: path.read_bytes()[:99], "image:0: truncated"),
    "a text file": (lambda p: io.StringIO("x"), r"the file object gives text; open .*'rb'"),
    "a file at its end": (lambda p: io.BytesIO(), r"image:0: the file object gives no .*seek\(0\)"),
    "a closed file": (lambda p: closed(p), "the file object cannot be read: read"),
    "a Pillow image that is closed": (lambda path: unloaded(path), "image:0: the Pillow image "),
    "a Pillow image without pixels": (lambda p: Image.new("RGB", (0, 4)), "image has 0 x 4 pixels"),
    "floats to 255": (
        lambda p: pixels(p).astype("f4"),
        "uint8 or floats from 0 to 1, .* values from 0 to 255$",
    ),
    "floats below 0": (lambda p: pixels(p) / 127.5 - 1, "floats from 0 to 1, .* from -1 to 1$"),
    "floats that are none": (lambda p: np.full((4, 4), np.nan), "floats from 0 to 1, .* to nan$"),
    "whole numbers": (lambda p: pixels(p).astype(int), "image:0: an array must be .* got int64"),
    "16 bits": (lambda path: pixels(path).astype("u2"), "image:0: an array must be .* got uint16"),
    "truth values": (lambda path: pixels(path) > 99, "image:0: an array must be .* got bool"),
    "channels first": (lambda p: pixels(p).transpose(2, 0, 1), r"got uint8 of shape \(3, 48, 64\)"),
    "two channels": (lambda path: pixels(path)[..., :2], r"got uint8 of shape \(48, 64, 2\)$"),
    "five dimensions": (lambda path: np.zeros((1, 1, 4, 4, 3), "u1"), r"of shape \(1, 4, 4, 3\)$"),
    "no rows": (lambda path: [np.zeros((0, 4, 3), "u1")], r"got uint8 of shape \(0, 4, 3\)$"),
    "a masked array": (masked, r"images: some values are masked; fill them first"),
    "[a masked array]": (lambda path: [masked(path)], r"image:0: some values are masked"),
    "a tensor elsewhere": (lambda p: [OnADevice(pixels(p))], "image:0: a OnADevice does not .*cpu"),
}


def closed(path: Path) -> io.BufferedReader:
    with open(path, "rb") as file:
        return file


def unloaded(path: Path) -> Image.Image:
    image = Image.open(path)
    image.close()
    return image


@pytest.mark.parametrize("form", IMAGES)
def test_pictures_in_every_form_find_themselves(form: str, opened: tuple[Searcher, Path]) -> None:
    searcher, path = opened
    make, count = IMAGES[form]
    answers = searcher.search(make(path), k=2)
    while OPEN:
        OPEN.pop().close()
    assert [found[0].uri for found in answers] == [str(path)] * count
    assert [found[0].score for found in answers] == pytest.approx([1] * count, abs=1e-5)


@pytest.mark.parametrize("form", NO_IMAGES)
def test_what_is_no_picture_is_refused_in_a_line(form: str, opened: tuple[Searcher, Path]) -> None:
    searcher, path = opened
    make, message = NO_IMAGES[form]
    with pytest.raises(RequestError, match=message) as refused:
        searcher.search(make(path))
    assert "\n" not in str(refused.value)


def test_a_picture_is_never_taken_for_the_file_of_its_name(
    opened: tuple[Searcher, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    searcher, path = opened
    (tmp_path / "image:0").write_bytes((path.parent.parent / "second" / "4.png").read_bytes())
    monkeypatch.chdir(tmp_path)
    for asked in (Image.open(path), path.read_bytes(), pixels(path), io.BytesIO(path.read_bytes())):
        [found] = searcher.search([asked], k=1)
        assert (found[0].uri, found[0].query_uri) == (str(path), "image:0")
    [found] = searcher.search(["image:0"], k=1)  # which is a name, and that of the other
    assert found[0].uri.endswith("second/4.png")


def test_answers_bear_the_names_of_what_was_asked(opened: tuple[Searcher, Path]) -> None:
    searcher, path = opened
    answers = searcher.search([path, Named(path), Image.open(path), pixels(path)], k=1)
    assert [found[0].query_uri for found in answers] == [str(path)] * 2 + ["image:2", "image:3"]


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def palette(image: Image.Image) -> Image.Image:
    with_key = image.convert("P", palette=Image.Palette.ADAPTIVE)
    with_key.info["transparency"] = 3
    return with_key


def gray_16(image: Image.Image) -> Image.Image:
    return Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)


def ramp(image: Image.Image) -> Image.Image:
    image = image.convert("RGBA")
    image.putalpha(Image.linear_gradient("L").resize(image.size))
    return image


# Made of an RGB picture; and the format that keeps it as it is.
MODES: dict[str, tuple[Callable[[Image.Image], Image.Image], str]] = {
    "1": (lambda image: image.convert("1"), "PNG"),
    "L": (lambda image: image.convert("L"), "PNG"),
    "LA": (lambda image: ramp(image).convert("LA"), "PNG"),
    "P": (lambda image: image.convert("P", palette=Image.Palette.ADAPTIVE), "PNG"),
    "P with a colour for none": (palette, "PNG"),
    "RGBA": (ramp, "PNG"),
    "16 bits": (gray_16, "PNG"),
    "CMYK": (lambda image: image.convert("CMYK"), "TIFF"),
    "floats": (lambda image: image.convert("F").point(lambda value: value * 0.003 + 0), "TIFF"),
}


@pytest.mark.parametrize("mode", MODES)
def test_a_pillow_image_looks_as_its_file_does(mode: str, opened: tuple[Searcher, Path]) -> None:
    searcher, path = opened
    make, kind = MODES[mode]
    image = make(Image.open(path))
    before = (image.mode, image.tobytes(), dict(image.info))
    one, other = searcher.embed([image, saved(image, kind)])
    np.testing.assert_allclose(one, other, atol=1e-5)
    assert (image.mode, image.tobytes(), dict(image.info)) == before
    if mode != "CMYK":  # the others do not look like the picture that they were made of
        assert float(one @ searcher.embed(path)[0]) < 0.99999


def test_a_pillow_image_is_turned_and_coloured_as_its_file(opened: tuple[Searcher, Path]) -> None:
    searcher, path = opened
    image = Image.open(path)
    exif = Image.Exif()
    exif[0x0112] = 6
    data = saved(image, "PNG", exif=exif)
    lying, plain = searcher.embed([Image.open(io.BytesIO(data)), image])
    np.testing.assert_allclose(lying, searcher.embed(data)[0], atol=1e-3)
    assert float(lying @ plain) < 0.999
    turned = np.rot90(pixels(path), -1)
    np.testing.assert_allclose(lying, searcher.embed(turned)[0], atol=1e-5)


def test_gray_arrays_are_gray_pictures(opened: tuple[Searcher, Path]) -> None:
    searcher, path = opened
    gray = np.array(Image.open(path).convert("L"))
    expected = searcher.embed(np.dstack([gray] * 3))[0]
    for form in (gray, gray[..., None], gray / 255, (gray / 255)[..., None].astype("f2")):
        np.testing.assert_allclose(searcher.embed(form)[0], expected, atol=2e-3)
    with_alpha = np.dstack([pixels(path), np.full((48, 64), 255, "u1")])
    with_alpha[:24, :, 3] = 0
    white = pixels(path)
    white[:24] = 255  # what is not there is white
    np.testing.assert_allclose(
        searcher.embed(with_alpha / 255)[0], searcher.embed(white)[0], atol=1e-5
    )


# --- vectors ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def of_vectors(tmp_path_factory: pytest.TempPathFactory) -> tuple[Searcher, np.ndarray, np.ndarray]:
    """A searcher of 40 rows, their ids, and their vectors of 8 components."""
    store = tmp_path_factory.mktemp("store")
    ids, vectors, _ = make_store(store, clustered(40, 8))
    return lookalike.open(store), ids, vectors


Rows = np.ndarray
# What is asked for, made of vectors (3, 8); and the rows that are found.
VECTORS: dict[str, tuple[Callable[[Rows], Any], list[int]]] = {
    "an array": (lambda rows: rows, [0, 1, 2]),
    "float64": (lambda rows: rows.astype(float), [0, 1, 2]),
    "float16": (lambda rows: rows.astype("f2"), [0, 1, 2]),
    "the other byte order": (lambda rows: rows.astype(">f4"), [0, 1, 2]),
    "an array of objects": (lambda rows: rows.astype(object), [0, 1, 2]),
    "one vector": (lambda rows: rows[1], [1]),
    "one vector as a list": (lambda rows: rows[1].tolist(), [1]),
    "one vector as a generator": (lambda rows: (float(value) for value in rows[2]), [2]),
    "one vector of Decimals as floats": (lambda rows: array.array("d", rows[2]), [2]),
    "lists": (lambda rows: rows.tolist(), [0, 1, 2]),
    "a list of arrays": (lambda rows: list(rows), [0, 1, 2]),
    "a tuple of tuples": (lambda rows: tuple(map(tuple, rows.tolist())), [0, 1, 2]),
    "a generator of arrays": (lambda rows: (row for row in rows[:2]), [0, 1]),
    "a generator of generators": (lambda rows: (iter(row.tolist()) for row in rows), [0, 1, 2]),
    "a tensor": (Tensor, [0, 1, 2]),
    "a list of tensors": (lambda rows: [Tensor(row) for row in rows], [0, 1, 2]),
    "an array of arrays": (lambda rows: arrays(rows), [0, 1, 2]),
    "a column of lists": (lambda rows: pa.array(rows.tolist()), [0, 1, 2]),
    "a column of equal lists": (lambda rows: fixed(rows), [0, 1, 2]),
    "a column in chunks": (lambda r: pa.chunked_array([fixed(r[:1]), fixed(r[1:])]), [0, 1, 2]),
    "a memoryview": (lambda rows: memoryview(rows), [0, 1, 2]),
    "[]": (lambda rows: [], []),
    "()": (lambda rows: (), []),
    "an empty generator": (lambda rows: iter(()), []),
    "an empty array": (lambda rows: np.empty(0), []),
    "an array of no rows": (lambda rows: rows[:0], []),
    "an empty column": (lambda rows: pa.array([], pa.list_(pa.float32())), []),
}

NO_VECTORS: dict[str, tuple[Callable[[Rows], Any], str]] = {
    "a number": (lambda rows: 3, "query vectors are not numbers: int 3$"),
    "a number of NumPy": (lambda rows: np.float32(3), "query vectors have shape"),
    "a text": (lambda rows: "12345678", "query vectors are not numbers: str '12345678'$"),
    "bytes": (lambda rows: rows.tobytes(), "query vectors are not numbers: bytes "),
    "a dictionary": (lambda rows: {0: rows[0]}, "query vectors are not numbers: dict "),
    "digits": (lambda r: [[str(one) for one in row] for row in r], "not numbers: they are <U"),
    "[None]": (lambda rows: [None], "not numbers: NoneType None$"),
    "a row of None": (lambda rows: [[1.0] * 7 + [None]], "query vectors are not numbers"),
    "complex numbers": (lambda rows: rows * 1j, "query vectors are not numbers: they are complex"),
    "dates": (lambda rows: np.zeros((1, 8), "M8[s]"), "not numbers: they are datetime64"),
    "Decimals": (lambda rows: [[Decimal(1)] * 8], "query vectors are not numbers"),
    "another width": (lambda r: r[:, :7], r"shape \(3, 7\), the store needs \(n, 8\), or \(8,\)"),
    "one of another width": (lambda rows: rows[0, :7], r"shape \(7,\), the store needs \(n, 8\)"),
    "rows of no width": (lambda rows: [[]], r"shape \(1, 0\), the store needs \(n, 8\)"),
    "no rows of another width": (lambda rows: np.empty((0, 5)), r"shape \(0, 5\), the store needs"),
    "three dimensions": (lambda rows: rows[None], r"shape \(1, 3, 8\), the store needs \(n, 8\)"),
    "rows of several widths": (lambda rows: [rows[0], rows[1, :5]], "not numbers of one shape"),
    "infinity": (lambda rows: rows * np.inf, "vector 0 has a value that is not finite"),
    "more than float32 holds": (lambda rows: rows.astype(float) * 1e300, "vector 0 .* not finite"),
    "zeros": (lambda rows: rows * 0, "vector 0 is zero, which cosine forbids"),
    "masked": (lambda rows: np.ma.masked_less(rows, 0), "query vectors: some values are masked"),
    "a tensor elsewhere": (lambda r: OnADevice(r), "query vectors: a OnADevice does not turn"),
}


def arrays(rows: Rows) -> np.ndarray:
    found = np.empty(len(rows), dtype=object)
    found[:] = list(rows)
    return found


def fixed(rows: Rows) -> pa.Array:
    return pa.FixedSizeListArray.from_arrays(pa.array(rows.reshape(-1)), rows.shape[1])


Store = tuple[Searcher, np.ndarray, np.ndarray]


@pytest.mark.parametrize("form", VECTORS)
def test_vectors_in_every_form_find_themselves(form: str, of_vectors: Store) -> None:
    searcher, ids, vectors = of_vectors
    make, rows = VECTORS[form]
    answers = searcher.search(vectors=make(vectors[:3]), k=1)
    assert [found[0].id for found in answers] == ids[rows].tolist()
    assert [found[0].query_uri for found in answers] == [f"vector:{i}" for i in range(len(rows))]
    found, scores = searcher.search_vectors(make(vectors[:3]), 5)
    assert found.shape == scores.shape == (len(rows), 5)


@pytest.mark.parametrize("form", NO_VECTORS)
def test_what_are_no_vectors_is_refused_in_a_line(form: str, of_vectors: Store) -> None:
    searcher, _, vectors = of_vectors
    make, message = NO_VECTORS[form]
    for search in (
        lambda asked: searcher.search(vectors=asked),
        lambda asked: searcher.search_vectors(asked, 1),
    ):
        with pytest.raises(RequestError, match=message) as refused:
            search(make(vectors[:3]))
        assert "\n" not in str(refused.value)


# --- numbers and ids --------------------------------------------------------------------------


def named(value: Any) -> str:
    """What a test is called by: the same in every process, so no address."""
    text = repr(value)
    return type(value).__name__ if " at 0x" in text else text


class Indexable:
    def __index__(self) -> int:
        return 3


WHOLE = [3, np.int64(3), np.uint8(3), np.array(3), Indexable(), np.int16(3)]
NOT_WHOLE = [
    0,
    -1,
    np.int64(0),
    3.0,
    np.float64(3),
    "3",
    True,
    np.True_,
    [3],
    np.array([3]),
    Decimal(3),
]


@pytest.mark.parametrize("value", WHOLE, ids=named)
def test_whole_numbers_of_any_kind_are_taken(value: Any, of_vectors: Store) -> None:
    assert whole_number("k", value) == 3
    searcher, _, vectors = of_vectors
    found, _ = searcher.search_vectors(vectors[:2], value, nprobe=value, rerank=value)
    assert found.shape == (2, 3)
    assert len(searcher.search(vectors=vectors[0], k=value)[0]) == 3


@pytest.mark.parametrize("value", NOT_WHOLE, ids=named)
def test_other_numbers_are_refused_by_name(value: Any, of_vectors: Store) -> None:
    searcher, _, vectors = of_vectors
    for name in ("k", "nprobe", "rerank"):
        message = re.escape(f"{name}: needs a whole number from 1, got {value!r}")
        with pytest.raises(RequestError, match=message):
            searcher.search(vectors=vectors[:1], **{name: value})
        with pytest.raises(RequestError, match=message):
            searcher.search_vectors(vectors[:1], **{"k": 1, name: value})


def test_k_is_checked_where_there_is_no_query(of_vectors: Store) -> None:
    with pytest.raises(RequestError, match="k: needs a whole number from 1, got None"):
        of_vectors[0].search([], k=None)  # type: ignore[arg-type]


EXCLUDED: dict[str, Callable[[list[int]], Any]] = {
    "a list": list,
    "a set": set,
    "a generator": iter,
    "an array": np.array,
    "an array of objects": lambda ids: np.array(ids, dtype=object),
    "numbers of NumPy": lambda ids: [np.int64(one) for one in ids],
    "a tensor": lambda ids: Tensor(np.array(ids)),
    "a column": pa.array,
    "a set for each": lambda ids: [set(ids), set(ids)],
    "an array for each": lambda ids: np.array([ids, ids]),
    "a generator of generators": lambda ids: (iter(ids) for _ in range(2)),
}


@pytest.mark.parametrize("form", EXCLUDED)
def test_ids_to_leave_out_in_every_form(form: str, of_vectors: Store) -> None:
    searcher, ids, vectors = of_vectors
    gone = ids[:3].tolist()
    found, _ = searcher.search_vectors(vectors[:2], 37, exclude=EXCLUDED[form](gone))
    assert sorted(found[0].tolist()) == sorted(found[1].tolist()) == ids[3:].tolist()


@pytest.mark.parametrize("nothing", [None, [], (), np.empty(0, int), iter(())], ids=named)
def test_nothing_to_leave_out(nothing: Any, of_vectors: Store) -> None:
    searcher, ids, vectors = of_vectors
    found, _ = searcher.search_vectors(vectors[:1], 40, exclude=nothing)
    assert sorted(found[0].tolist()) == ids.tolist()


@pytest.mark.parametrize(
    ("exclude", "message"),
    [
        (5, "exclude: needs ids, or ids for each query; got int 5"),
        ("5", "exclude: needs ids, .*; got str '5'"),
        ({1: 2}, "exclude: needs ids, .*; got dict"),
        ([1.5], "exclude: needs whole numbers, the ids of rows; got float 1.5"),
        ([True], "exclude: needs whole numbers, .*; got bool True"),
        ([None], "exclude: needs whole numbers, .*; got NoneType None"),
        (["/a.png"], "exclude: needs whole numbers, .*; got str '/a.png'"),
        ([1 << 70], "exclude: an id is beyond 64 bits"),
        ([[1]], "exclude has 1 sequences of ids for 2 queries"),
    ],
)
def test_what_are_no_ids_is_refused(exclude: Any, message: str, of_vectors: Store) -> None:
    searcher, _, vectors = of_vectors
    with pytest.raises(RequestError, match=message):
        searcher.search_vectors(vectors[:2], 1, exclude=exclude)


@pytest.mark.parametrize("where", [5, b"width > 1", ["width > 1"], True])
def test_a_condition_is_a_text(where: Any, of_vectors: Store) -> None:
    with pytest.raises(RequestError, match="where: needs a condition as a text, got "):
        of_vectors[0].search(vectors=of_vectors[2][:1], where=where)


@pytest.mark.parametrize("store", [5, None, b"store", "", ["store"]])
def test_a_store_is_named_by_a_path_or_a_uri(store: Any) -> None:
    for call in (lookalike.open, lookalike.dataset):
        with pytest.raises(RequestError, match="store: needs the name of a folder or a URI, got "):
            call(store)
