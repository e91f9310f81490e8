"""Checkpoints of PyTorch: the numbers are read, and nothing of the pickle runs."""

from __future__ import annotations

import io
import os
import pickle
import pickletools
import struct
import sys
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lookalike.models.photo import checkpoint
from lookalike.models.torch_checkpoint import CheckpointError, read_checkpoint

MAGIC = 0x1950A86A20F9469CFC6C


class Name:
    """Pickled as a name of another module, which need not be there."""

    def __init__(self, text: str) -> None:
        self.text = text


class Storage:
    """Pickled as a reference to a storage."""

    def __init__(self, kind: str, key: str, count: Any, view: Any = None) -> None:
        self.reference = ("storage", Name(f"torch {kind}"), key, "cpu", count, view)


class Tensor:
    """Pickled as PyTorch pickles a tensor."""

    def __init__(self, storage: Any, offset: Any, shape: Any, strides: Any) -> None:
        self.arguments = (storage, offset, shape, strides, False, OrderedDict())

    def __reduce__(self) -> Any:
        return Name("torch._utils _rebuild_tensor_v2"), self.arguments


class Writer(pickle._Pickler):
    """Writes names as they are said, and storages as references."""

    dispatch: ClassVar = dict(pickle._Pickler.dispatch)

    def persistent_id(self, obj: Any) -> Any:
        return obj.reference if isinstance(obj, Storage) else None

    def save_name(self, obj: Name) -> None:
        module, _, name = obj.text.partition(" ")
        self.write(pickle.GLOBAL + f"{module}\n{name}\n".encode())  # type: ignore[attr-defined]
        self.memoize(obj)  # type: ignore[attr-defined]

    def save_reduce(self, func: Any, args: Any, *rest: Any, **more: Any) -> None:
        if not isinstance(func, Name):
            super().save_reduce(func, args, *rest, **more)  # type: ignore[misc]
            return
        self.save(func)  # type: ignore[attr-defined]
        self.save(args)  # type: ignore[attr-defined]
        self.write(pickle.REDUCE)  # type: ignore[attr-defined]

    dispatch[Name] = save_name


def pickled(value: Any) -> bytes:
    file = io.BytesIO()
    Writer(file, 2).dump(value)
    return file.getvalue()


def written(state: Any, storages: dict[str, np.ndarray], keys: Any = None) -> bytes:
    """A checkpoint as PyTorch before 1.6 writes it."""
    system = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"short": 2}}
    parts = [MAGIC, 1001, system, state, list(storages) if keys is None else keys]
    data = b"".join(pickled(part) for part in parts)
    for values in storages.values():
        data += struct.pack("<q", values.size) + values.tobytes()
    return data


FLOATS = np.arange(24, dtype=np.float32)
COUNTS = np.array([7], dtype=np.int64)
STATE = OrderedDict(
    plain=Tensor(Storage("FloatStorage", "1", 24), 0, (2, 3, 4), (12, 4, 1)),
    transposed=Tensor(Storage("FloatStorage", "1", 24), 0, (4, 6), (1, 4)),
    part=Tensor(Storage("FloatStorage", "1", 24), 5, (2,), (3,)),
    repeated=Tensor(Storage("FloatStorage", "1", 24), 23, (3,), (0,)),
    scalar=Tensor(Storage("LongStorage", "2", 1), 0, (), ()),
    one=Tensor(Storage("LongStorage", "2", 1), 0, (1, 1), (2**40, 1)),
)
GOOD = written(STATE, {"1": FLOATS, "2": COUNTS})


def test_views_are_read_by_their_strides() -> None:
    found = read_checkpoint(GOOD)
    assert list(found) == list(STATE)
    np.testing.assert_array_equal(found["plain"], FLOATS.reshape(2, 3, 4))
    np.testing.assert_array_equal(found["transposed"], FLOATS.reshape(6, 4).T)
    assert found["part"].tolist() == [5, 8]
    assert found["repeated"].tolist() == [23, 23, 23]
    assert (found["scalar"].shape, int(found["scalar"])) == ((), 7)
    assert found["one"].tolist() == [[7]]
    assert found["plain"].dtype == np.float32
    assert found["scalar"].dtype == np.int64
    assert all(one.flags.c_contiguous and one.flags.owndata for one in found.values())


def tensor(storage: Any = None, offset: Any = 0, shape: Any = (24,), strides: Any = (1,)) -> bytes:
    storage = storage or Storage("FloatStorage", "1", 24)
    return written({"t": Tensor(storage, offset, shape, strides)}, {"1": FLOATS})


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "a pickle"),
        (b"PK\x03\x04 what newer versions write", "a pickle"),
        (pickled(MAGIC) + pickled(1000), "does not begin as"),
        (tensor(shape=(25,)), "reaches to number 24 of its storage, which has 24"),
        (tensor(offset=1), "reaches to number 24"),
        (tensor(strides=(2,)), "reaches to number 46"),
        (tensor(shape=(2**40,), strides=(0,)), "reaches to number 0"),
        (tensor(shape=(0,)), "shape"),
        (tensor(shape=(-1,)), "must be counts"),
        (tensor(offset=True), "must be counts"),
        (tensor(shape=(2, 12)), "not described as tensors are"),
        (tensor(Storage("FloatStorage", "1", 23), shape=(2,)), "23 numbers; it says 24"),
        (tensor(Storage("HalfStorage", "1", 24)), "not described as storages"),
        (tensor(Storage("FloatStorage", "1", -1)), "has -1 numbers"),
        (tensor(Storage("FloatStorage", "1", 24, ("x", 0, 1))), "not described as storages"),
        (tensor(Storage("FloatStorage", "9", 24)), "storage 1 belongs to no tensor"),
        (written(STATE, {"1": FLOATS}), "the numbers of storage 2 are missing"),
        (written(STATE, {"1": FLOATS, "2": COUNTS}, ["1", "1"]), "comes twice"),
        (written({"t": 3}, {}), "what is no tensor"),
        (written([1], {}), "no dictionary of tensors"),
        (GOOD[:-3], "should have 1 numbers"),
        (written({1: 2}, {}), "a key that is no text"),
    ],
)
def test_what_is_wrong_is_said(data: bytes, words: str) -> None:
    with pytest.raises(CheckpointError, match=words):
        read_checkpoint(data)


class Hostile:
    """Runs a command where it is unpickled."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_nothing_of_a_hostile_pickle_runs(tmp_path: Path, protocol: int) -> None:
    proof = tmp_path / "it ran"
    attacks: list[Any] = [
        Hostile(os.system, f"touch '{proof}'"),
        Hostile(eval, f"open({str(proof)!r}, 'w')"),
        {"t": Hostile(open, str(proof), "w")},
        OrderedDict(t=Hostile(os.system, f"touch '{proof}'")),
    ]
    for attack in attacks:
        data = pickle.dumps(attack, protocol)
        with pytest.raises(CheckpointError):
            read_checkpoint(pickled(MAGIC) + pickled(1001) + data)
        with pytest.raises(CheckpointError):
            read_checkpoint(data)
        assert not proof.exists()
    pickle.loads(pickle.dumps(attacks[0], protocol))  # elsewhere it would
    assert proof.exists()


_RAN: list[str] | None = None  # what Python is asked to do meanwhile, where anybody watches


def _watch(event: str, _: tuple[Any, ...]) -> None:
    if _RAN is not None and event in {
        "os.system",
        "os.exec",
        "os.posix_spawn",
        "subprocess.Popen",
        "open",
        "import",
        "exec",
        "compile",
        "pickle.find_class",
    }:
        _RAN.append(event)


sys.addaudithook(_watch)


@contextmanager
def nothing_runs() -> Iterator[None]:
    global _RAN
    _RAN = ran = []
    try:
        yield
    finally:
        _RAN = None
    assert ran == []


PLACES = st.integers(0, len(GOOD) - 1)
BYTES = st.lists(st.tuples(PLACES, st.integers(0, 255)), max_size=4)
CALL = pickle.dumps(Hostile(os.system, "exit 1"), 2)[2:-1]  # without its beginning and its end


@settings(max_examples=1000)
@given(BYTES, st.none() | PLACES, st.none() | PLACES)
def test_a_damaged_file_is_an_error_or_numbers(
    changes: list[tuple[int, int]], call: int | None, end: int | None
) -> None:
    """Bytes are changed, a call is put between them, or the end is cut off, or all of it."""
    data = bytearray(GOOD)
    for place, value in changes:
        data[place] = value
    if call is not None:
        data[call:call] = CALL
    with nothing_runs():
        try:
            found = read_checkpoint(bytes(data[:end]))
        except CheckpointError:
            return
    assert sum(one.size for one in found.values()) <= 6 * 24


def test_what_runs_would_be_seen() -> None:
    with pytest.raises(AssertionError), nothing_runs():
        pickle.loads(pickle.dumps(Hostile(os.system, "exit 1"), 2))


def test_the_shipped_weights_with_damage() -> None:
    """However the pickles of the real file are changed, nothing but a plain error comes of it."""
    data = checkpoint()
    file = io.BytesIO(data)
    for _ in range(5):
        for _ in pickletools.genops(file):
            pass
    head = file.tell()
    assert 10_000 < head < 200_000
    rng = np.random.default_rng(0)
    for _ in range(100):
        changed = bytearray(data[: head + 1000])  # without the numbers none can succeed
        for place in rng.integers(0, head, rng.integers(1, 4)):
            changed[place] = rng.integers(0, 256)
        with pytest.raises(CheckpointError):
            read_checkpoint(bytes(changed))
