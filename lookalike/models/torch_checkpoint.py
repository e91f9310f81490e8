"""PyTorch checkpoints, read without PyTorch and without running anything of them.

A checkpoint of the legacy format (before PyTorch 1.6) is five pickles, then the numbers:

    magic number, protocol 1001, system, state dict, keys of the storages
    for each key: how many numbers, int64; the numbers, little-endian

Unpickling runs whatever the pickle says. This reader is no unpickler: it knows the twenty
instructions that such a file is made of and the four names that they may mention, builds
dictionaries, tuples and numbers, and has no code for anything else.
"""

from __future__ import annotations

import io
import math
import pickletools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import numpy.typing as npt

_MAGIC = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001
_DTYPES: dict[str, np.dtype[Any]] = {
    "torch FloatStorage": np.dtype("<f4"),
    "torch LongStorage": np.dtype("<i8"),
}
_DICT, _TENSOR = "collections OrderedDict", "torch._utils _rebuild_tensor_v2"
_MARK = object()


class CheckpointError(ValueError):
    """A file that is no checkpoint, a damaged one, or one that asks for more than numbers."""


@dataclass(frozen=True)
class _Name:
    """A name that a pickle mentions: it is compared, never looked up."""

    text: str


@dataclass(frozen=True)
class _Storage:
    """A run of numbers that lies after the pickles."""

    key: str
    dtype: np.dtype[Any]
    count: int


@dataclass(frozen=True)
class _View:
    """A tensor: part of a storage, by offset, shape and strides, all counted in numbers."""

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
    views = {name: view for name, view in state.items() if isinstance(view, _View)}
    if len(views) != len(state) or not all(isinstance(key, str) for key in keys):
        raise CheckpointError("its dictionary holds what is no tensor")
    storages = _read_storages(file, keys, {v.storage.key: v.storage for v in views.values()})
    return {name: _array(name, view, storages) for name, view in views.items()}


def _read_pickle(file: io.BytesIO) -> Any:
    """Read one pickle's dictionaries, lists, tuples, text and numbers."""
    stack: list[Any] = []
    memo: dict[int, Any] = {}
    try:
        for instruction, found, _ in pickletools.genops(file):
            name, argument = instruction.name, cast(Any, found)
            if name == "STOP":
                if len(stack) != 1:
                    raise CheckpointError(f"a pickle ends with {len(stack)} values")
                return stack.pop()
            if name in _CONSTANTS:
                stack.append(_CONSTANTS[name])
            elif name in _LITERALS:
                stack.append(argument)
            elif name == "GLOBAL":
                stack.append(_Name(argument))
            elif name in ("BINPUT", "LONG_BINPUT"):
                memo[argument] = stack[-1]
            elif name in ("BINGET", "LONG_BINGET"):
                stack.append(memo[argument])
            elif name in _STEPS:
                _STEPS[name](stack)
            elif name != "PROTO":
                raise CheckpointError(f"it holds the instruction {name}, which no checkpoint needs")
    except CheckpointError:
        raise
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        raise CheckpointError(f"a pickle is damaged: {error}") from error
    raise CheckpointError("a pickle has no end")


def _since_mark(stack: list[Any]) -> list[Any]:
    """Take the values above the last mark, and the mark."""
    for place in range(len(stack) - 1, -1, -1):
        if stack[place] is _MARK:
            values = stack[place + 1 :]
            del stack[place:]
            return values
    raise CheckpointError("a pickle has no mark where one is needed")


def _set_items(stack: list[Any], items: list[Any]) -> None:
    if not isinstance(stack[-1], dict) or len(items) % 2:
        raise CheckpointError("a pickle sets items of what is no dictionary")
    for key, value in zip(items[::2], items[1::2], strict=True):
        if not isinstance(key, str):
            raise CheckpointError(f"a dictionary has a key that is no text but {type(key)}")
        stack[-1][key] = value


def _append(stack: list[Any], items: list[Any]) -> None:
    if not isinstance(stack[-1], list):
        raise CheckpointError("a pickle appends to what is no list")
    stack[-1].extend(items)


def _call(stack: list[Any]) -> None:
    """What would be a call: make a dictionary, or describe a tensor; nothing else is called."""
    arguments, name = stack.pop(), stack.pop()
    if name == _Name(_DICT) and arguments == ():
        stack.append({})
    elif name == _Name(_TENSOR):
        storage, offset, shape, strides = arguments[:4]
        whole = (offset, *shape, *strides)
        if not isinstance(storage, _Storage) or len(shape) != len(strides):
            raise CheckpointError("a tensor is not described as tensors are")
        if not all(type(number) is int and number >= 0 for number in whole):
            raise CheckpointError("a tensor's offset, shape and strides must be counts")
        stack.append(_View(storage, offset, tuple(shape), tuple(strides)))
    else:
        raise CheckpointError(f"it calls {getattr(name, 'text', name)!r}, and nothing is called")


def _persistent(stack: list[Any]) -> None:
    """The reference to a storage: ("storage", type, key, device, count, view of another)."""
    kind, dtype, key, _, count, view = stack.pop()
    type_name = dtype.text if isinstance(dtype, _Name) else ""
    known = kind == "storage" and type_name in _DTYPES and isinstance(key, str)
    if not known or view is not None:
        raise CheckpointError("a storage is not described as storages of float32 and int64 are")
    if type(count) is not int or count < 0:
        raise CheckpointError(f"storage {key} has {count!r} numbers")
    stack.append(_Storage(key, _DTYPES[type_name], count))


def _take(stack: list[Any], count: int) -> list[Any]:
    if len(stack) < count:
        raise CheckpointError("a pickle takes more values than there are")
    values = stack[len(stack) - count :]
    del stack[len(stack) - count :]
    return values


_CONSTANTS: dict[str, Any] = {
    "NONE": None,
    "NEWTRUE": True,
    "NEWFALSE": False,
    "EMPTY_TUPLE": (),
    "MARK": _MARK,
}
_LITERALS = {"BININT", "BININT1", "BININT2", "LONG1", "BINUNICODE"}
_STEPS: dict[str, Callable[[list[Any]], None]] = {
    "EMPTY_DICT": lambda stack: stack.append({}),
    "EMPTY_LIST": lambda stack: stack.append([]),
    "TUPLE": lambda stack: stack.append(tuple(_since_mark(stack))),
    "TUPLE1": lambda stack: stack.append(tuple(_take(stack, 1))),
    "TUPLE2": lambda stack: stack.append(tuple(_take(stack, 2))),
    "TUPLE3": lambda stack: stack.append(tuple(_take(stack, 3))),
    "SETITEM": lambda stack: _set_items(stack, _take(stack, 2)),
    "SETITEMS": lambda stack: _set_items(stack, _since_mark(stack)),
    "APPEND": lambda stack: _append(stack, _take(stack, 1)),
    "APPENDS": lambda stack: _append(stack, _since_mark(stack)),
    "BUILD": lambda stack: _take(stack, 1).clear(),  # attributes of a dictionary: not needed
    "BINPERSID": _persistent,
    "REDUCE": _call,
}


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
        length = storage.count * storage.dtype.itemsize
        if len(rest) < 8 + length or count != storage.count:
            raise CheckpointError(
                f"storage {key} should have {storage.count} numbers; it says {count}, and "
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
