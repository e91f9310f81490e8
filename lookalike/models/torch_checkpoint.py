"""PyTorch checkpoints, read without PyTorch and without running anything of them.

A checkpoint of the legacy format (before PyTorch 1.6) is five pickles, then the numbers:

    magic number, protocol 1001, system, state dict, keys of the storages
    for each key: how many numbers, int64; the numbers, little-endian

Unpickling runs whatever the pickle says. So only the twenty instructions are let through that such
a file is made of, and of names only the four that it mentions, each of which stands for something
of this module: dictionaries, tuples, lists, texts and numbers come of it, and nothing else.
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

_MAGIC = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001
_DTYPES: dict[str, np.dtype[Any]] = {
    "torch FloatStorage": np.dtype("<f4"),
    "torch LongStorage": np.dtype("<i8"),
}
_DICT, _TENSOR = "collections OrderedDict", "torch._utils _rebuild_tensor_v2"
_NEEDED = frozenset(
    [
        *("PROTO", "STOP", "GLOBAL", "BINPUT", "LONG_BINPUT", "BINGET", "LONG_BINGET", "MARK"),
        *("NONE", "NEWTRUE", "NEWFALSE", "BININT", "BININT1", "BININT2", "LONG1", "BINUNICODE"),
        *("EMPTY_DICT", "EMPTY_LIST", "EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"),
        *("SETITEM", "SETITEMS", "APPEND", "APPENDS", "BUILD", "BINPERSID", "REDUCE"),
    ]
)
"""Instructions of pickles."""


class CheckpointError(ValueError):
    """A file that is no checkpoint, a damaged one, or one that asks for more than numbers."""


class _Storage(NamedTuple):
    """A run of numbers that lies after the pickles."""

    key: str
    dtype: np.dtype[Any]
    size: int


class _View(NamedTuple):
    """A tensor: part of a storage, by offset, shape and strides, all counted in numbers.

    A tuple, as a pickle cannot set attributes of that.
    """

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def read_checkpoint(data: bytes) -> dict[str, npt.NDArray[Any]]:
    """Read the tensors of a legacy checkpoint, by name.

    Args:
        data: The whole file.

    Returns:
        Arrays of float32 or int64, contiguous, each a copy of its own.

    Raises:
        CheckpointError: The file is not such a checkpoint, or is damaged.
    """
    file = io.BytesIO(data)
    if _read_pickle(file) != _MAGIC or _read_pickle(file) != _PROTOCOL:
        raise CheckpointError("it does not begin as a legacy checkpoint of PyTorch does")
    _read_pickle(file)  # the system that wrote it
    state, keys = _read_pickle(file), _read_pickle(file)
    if not isinstance(state, dict) or not isinstance(keys, list):
        raise CheckpointError("it holds no dictionary of tensors, or no list of storages")
    if not all(isinstance(name, str) for name in state):
        raise CheckpointError("its dictionary has a key that is no text")
    views = {name: view for name, view in state.items() if isinstance(view, _View)}
    if len(views) != len(state) or not all(isinstance(key, str) for key in keys):
        raise CheckpointError("its dictionary holds what is no tensor")
    storages = _read_storages(file, keys, {v.storage.key: v.storage for v in views.values()})
    return {name: _array(name, view, storages) for name, view in views.items()}


def _read_pickle(file: io.BytesIO) -> Any:
    """Read one pickle's dictionaries, lists, tuples, texts and numbers."""
    start, size = file.tell(), file.getbuffer().nbytes
    try:
        for instruction, argument, _ in pickletools.genops(file):
            name = instruction.name
            if name not in _NEEDED:
                raise CheckpointError(f"it holds the instruction {name}, which no checkpoint needs")
            if name == "LONG_BINPUT" and int(str(argument)) > size:  # memory is taken for as many
                raise CheckpointError(f"it remembers a value by the number {argument}")
        return _Unpickler(io.BytesIO(file.getbuffer()[start : file.tell()])).load()
    except CheckpointError:
        raise
    except (pickle.UnpicklingError, ValueError, TypeError, LookupError, AttributeError) as error:
        raise CheckpointError(f"a pickle is damaged: {error}") from error


class _Unpickler(pickle.Unpickler):
    """Makes values of instructions that are known to be harmless."""

    def find_class(self, module: str, name: str, /) -> Any:
        text = f"{module} {name}"
        if text == _TENSOR:
            return self._tensor
        if text == _DICT:
            return self._dictionary
        return _Name(text)

    def persistent_load(self, pid: Any, /) -> _Storage:
        """The reference to a storage: ("storage", type, key, device, count, view of another)."""
        kind, dtype, key, _, count, view = pid
        known = kind == "storage" and dtype in _DTYPES and isinstance(key, str)
        if not known or view is not None:
            raise CheckpointError("a storage is not described as storages of float32 and int64 are")
        if type(count) is not int or count < 0:
            raise CheckpointError(f"storage {key} has {count!r} numbers")
        return _Storage(key, _DTYPES[dtype], count)

    def _tensor(self, storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> _View:
        if not isinstance(storage, _Storage) or len(shape) != len(strides):
            raise CheckpointError("a tensor is not described as tensors are")
        if not all(type(number) is int and number >= 0 for number in (offset, *shape, *strides)):
            raise CheckpointError("a tensor's offset, shape and strides must be counts")
        return _View(storage, offset, tuple(shape), tuple(strides))

    def _dictionary(self) -> _Dictionary:
        return _Dictionary()


class _Name(str):
    """Any other name that a pickle mentions: it is compared, never looked up."""

    def __call__(self, *_: object) -> None:
        raise CheckpointError(f"it calls {self!r}, and nothing is called")


class _Dictionary(dict[Any, Any]):
    """What a checkpoint keeps its tensors in; attributes that it is given are not needed."""

    def __setstate__(self, state: object) -> None:
        """Leave them."""


def _read_storages(
    file: io.BytesIO, keys: list[str], described: dict[str, _Storage]
) -> dict[str, npt.NDArray[Any]]:
    """Read the numbers after the pickles: those of every storage, in the order of the keys."""
    rest = memoryview(file.getbuffer())[file.tell() :]
    storages: dict[str, npt.NDArray[Any]] = {}
    for key in keys:
        storage = described.get(key)
        if storage is None or key in storages:
            raise CheckpointError(f"storage {key} belongs to no tensor, or comes twice")
        count = int.from_bytes(rest[:8], "little")
        length = storage.size * storage.dtype.itemsize
        if len(rest) < 8 + length or count != storage.size:
            raise CheckpointError(
                f"storage {key} should have {storage.size} numbers; it says {count}, and "
                f"{max(len(rest) - 8, 0)} bytes are left"
            )
        storages[key] = np.frombuffer(rest[8 : 8 + length], storage.dtype)
        rest = rest[8 + length :]
    if missing := described.keys() - storages.keys():
        raise CheckpointError(f"the numbers of storage {min(missing)} are missing")
    return storages


def _array(name: str, view: _View, storages: dict[str, npt.NDArray[Any]]) -> npt.NDArray[Any]:
    """Cut a tensor out of its storage; strides count, since some are transposed views."""
    storage = storages[view.storage.key]
    # The stride of an axis with one place says nothing, and may be anything.
    strides = [n if size > 1 else 0 for size, n in zip(view.shape, view.strides, strict=True)]
    last = view.offset + sum((n - 1) * s for n, s in zip(view.shape, strides, strict=True))
    # A tensor that repeats numbers (stride 0) could be larger than any memory.
    if 0 in view.shape or last >= len(storage) or math.prod(view.shape) > len(storage):
        raise CheckpointError(
            f"tensor {name} of shape {view.shape} reaches to number {last} of its storage, which "
            f"has {len(storage)}"
        )
    if storage.dtype != view.storage.dtype:
        raise CheckpointError(f"tensor {name} is {view.storage.dtype}, its storage {storage.dtype}")
    strides = [stride * storage.itemsize for stride in strides]
    part = np.lib.stride_tricks.as_strided(storage[view.offset :], view.shape, strides)
    return part.copy()
