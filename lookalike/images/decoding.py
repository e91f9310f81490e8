"""Files become model inputs in a decoder process, and one that dies costs only its culprit.

A worker's decoder process reads, hashes, decodes and resizes ahead while the worker computes
vectors, within limits of memory and time. When it dies (a bug in a C library, a bomb), the file it
was at is tried once more in a fresh process with nothing else under way; if that dies too, the file
is the culprit and is rejected. All others go on.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Collection, Container, Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from lookalike.images.cropping import Crop
from lookalike.images.decoder_process import Message, encode_message, read_message
from lookalike.images.functions import Function
from lookalike.images.limits import ImageLimits
from lookalike.outcomes import Decoded, Duplicate, Failed
from lookalike.records import SourceFile
from lookalike.sources.contents import Contents

_AHEAD = 64  # files under way, at most
_PIPE = 1 << 20  # as much as systems allow without privileges
_LEAST_PIPE = 1 << 16
_LONGEST_NAME = 8192
_PATIENCE_S = 10.0
_ASKED = ("uri", "bytes", "version", "problem", "container", "offset")
# Address space is what a decoder's memory is limited by, and threads reserve much of it.
_FRUGAL = {
    "MALLOC_ARENA_MAX": "1",
    **dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "OPENCV_FOR_THREADS_NUM"), "1"),
}


class Decoder:
    """A decoder process, started when first needed and replaced when it dies. Not thread-safe."""

    def __init__(
        self,
        sizes: Sequence[tuple[int, int]],
        limits: ImageLimits,
        functions: Sequence[Function] = (),
        crop: Crop | None = None,
    ) -> None:
        """Decode to model inputs of these (height, width), each file within the limits.

        Functions of the user's own add their vectors, within the same limits. With a crop, inputs
        are made of that part of each picture; another may be set before the next call of `decode`.
        """
        self._sizes, self._limits, self._functions = tuple(sizes), limits, tuple(functions)
        self.crop = crop
        self._running: _Process | None = None

    def __enter__(self) -> Decoder:
        """Use as a context, which ends the process."""
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()  # engines do not always take leave

    def close(self) -> None:
        """End the process; it is started again when needed."""
        if self._running:
            self._running.end()
        self._running = None

    @property
    def pid(self) -> int | None:
        """Of the running process."""
        return self._running.pid if self._running else None

    def start(self) -> None:
        """Start the process now, beside what the caller does meanwhile."""
        self._process([])

    def decode(
        self,
        files: Iterable[SourceFile],
        *,
        once: bool,
        known: Collection[bytes] = (),
        forgotten: Container[bytes] = frozenset(),
    ) -> Iterator[Decoded | Duplicate | Failed]:
        """Yield the outcome of each file, in order, some files being under way ahead of it.

        Args:
            files: What to decode.
            once: Whether bytes met before, among these files, are `Duplicate` and not decoded.
            known: Hashes of bytes that count as met before.
            forgotten: Hashes of bytes that are ignored, for the reason "forgotten".
        """
        coming = map(_with_a_usable_name, files)
        waiting: deque[SourceFile] = deque()
        seen: list[bytes] = [*known]  # before and in this call; a fresh process is told
        finished = False
        try:
            process = self._process(seen)
            while True:
                while not process.busy and (file := next(coming, None)):
                    waiting.append(file)
                    process.ask(file, once, self.crop)
                if not waiting:
                    break
                file = waiting.popleft()
                outcome = self._outcome(process, file)
                died = outcome is None
                if outcome is None:
                    outcome = self._try_alone(process, file, seen, once)
                if once and outcome.sha256 and _settles_equals(outcome):
                    seen.append(outcome.sha256)
                if died:
                    process = self._process(seen)
                    for other in waiting:
                        process.ask(other, once, self.crop)
                if outcome.sha256 and outcome.sha256 in forgotten:
                    outcome = Failed(file, "ignored", "forgotten", sha256=outcome.sha256)
                yield outcome
            finished = True
        finally:
            if not finished:  # answers that nobody waits for any more may be under way
                self.close()

    def _process(self, seen: Sequence[bytes]) -> _Process:
        """The running process, or a new one; it begins anew with these hashes."""
        if self._running is None or self._running.ended:
            self.close()
            self._running = _Process()
            self._running.send(
                {
                    "sizes": self._sizes,
                    "limits": asdict(self._limits),
                    "functions": [asdict(one) for one in self._functions],
                }
            )
        self._running.send({"seen": [digest.hex() for digest in seen]})
        return self._running

    def _try_alone(
        self, died: _Process, file: SourceFile, seen: Sequence[bytes], once: bool
    ) -> Decoded | Duplicate | Failed:
        """What becomes of the file at which the process died."""
        if died.end() != -signal.SIGALRM:  # time runs out again the second time
            died = self._process(seen)
            died.ask(file, once, self.crop)
            outcome = self._outcome(died, file)
            if outcome is not None:
                return outcome
        return _culprit(file, died.end(), self._limits)

    def _outcome(self, process: _Process, file: SourceFile) -> Decoded | Duplicate | Failed | None:
        """Wait for a file's outcome; None where the process dies before."""
        answer = process.answer()
        if answer is None:
            return None
        head, body = answer
        sha256 = bytes.fromhex(head["sha256"]) if "sha256" in head else None
        if "ignored" in head:
            return Failed(file, "ignored", head["ignored"], head["detail"], sha256)
        if "rejected" in head:
            return Failed(file, "rejected", head["rejected"], head["detail"], sha256)
        if sha256 is None:
            raise RuntimeError(f"{file.uri}: the decoder process told no hash of its content")
        if "duplicate" in head:
            return Duplicate(file, sha256)
        return Decoded(
            file,
            sha256,
            head["bytes"],
            head["width"],
            head["height"],
            head["format"],
            self._arrays(body),
        )

    def _arrays(self, body: bytes) -> tuple[npt.NDArray[Any], ...]:
        arrays: list[npt.NDArray[Any]] = []
        start = 0
        for height, width in self._sizes:
            count = height * width * 3
            array = np.frombuffer(body, np.uint8, count, start)
            arrays.append(array.reshape(height, width, 3))
            start += count
        for function in self._functions:
            arrays.append(np.frombuffer(body, np.float32, function.dim, start))
            start += 4 * function.dim
        return tuple(arrays)


def _with_a_usable_name(file: SourceFile) -> SourceFile:
    """The file, or a row with a problem where its name is too long for any request."""
    if len(file.uri) + len(file.container) + len(file.problem) <= _LONGEST_NAME:
        return file
    return replace(
        file, uri=file.uri[:_LONGEST_NAME], problem="the name is too long", container="", offset=-1
    )


def _settles_equals(outcome: Decoded | Duplicate | Failed) -> bool:
    """Whether files of equal bytes have that outcome too; others may hang on the name."""
    if isinstance(outcome, Failed):
        return outcome.reason in ("crashed", "timed_out")
    return isinstance(outcome, Decoded)


def _culprit(file: SourceFile, status: int, limits: ImageLimits) -> Failed:
    """The reject of a file that ended its decoder."""
    if status == -signal.SIGALRM:
        reason = "timed_out"
        detail = f"decoding took more than {limits.max_seconds:g} s (images.max_seconds)"
    else:
        reason = "crashed"
        if status < 0:
            how = f"was ended by signal {-status} ({signal.Signals(-status).name})"
        else:
            how = f"ended with status {status}"
        memory = ", as the system does when memory runs out" if status == -signal.SIGKILL else ""
        detail = f"the decoder {how}{memory}, twice at this file"
    with Contents() as contents, contextlib.suppress(OSError):
        digest = hashlib.sha256(contents.read(file)).digest()
        return Failed(file, "rejected", reason, detail, digest)
    return Failed(file, "rejected", reason, detail)


class _Process:
    """One decoder process, and the pipes to and from it.

    Neither side may wait for the other to read while that one waits as well: as long as nothing is
    asked of a `busy` process, what is asked fits into the pipe, and only that process ever waits to
    write.
    """

    def __init__(self) -> None:
        root = str(Path(__file__).resolve().parents[2])
        paths = [root, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
        self._popen = subprocess.Popen(
            [sys.executable, "-m", "lookalike.images.decoder_process"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), **_FRUGAL},
        )
        assert self._popen.stdin is not None
        assert self._popen.stdout is not None
        self._requests, self._answers = self._popen.stdin, self._popen.stdout
        self._room = _widen(self._requests)
        _widen(self._answers)
        self._over = False
        self._under_way: deque[int] = deque()  # sizes of requests that were not answered

    @property
    def pid(self) -> int:
        """Number of the process."""
        return self._popen.pid

    @property
    def ended(self) -> bool:
        """Whether it has ended, by itself or not."""
        return self._over or self._popen.poll() is not None

    @property
    def busy(self) -> bool:
        """Whether it has enough to do."""
        return len(self._under_way) >= _AHEAD or sum(self._under_way) > self._room // 2

    def ask(self, file: SourceFile, once: bool, crop: Crop | None) -> None:
        """Send a file, or a part of it, to be decoded."""
        fields = {name: getattr(file, name) for name in _ASKED}
        part = str(crop) if crop else None
        self._under_way.append(self.send({"file": fields, "remember": once, "crop": part}))

    def send(self, head: dict[str, Any]) -> int:
        """Send a request, and tell its size; one that has died shows when its answer is missing."""
        message = encode_message(head)
        with contextlib.suppress(BrokenPipeError):
            self._requests.write(message)
            self._requests.flush()
        return len(message)

    def answer(self) -> Message | None:
        """Wait for the next answer; None once it has died."""
        message = read_message(self._answers)
        self._over = message is None
        if message:
            self._under_way.popleft()
        return message

    def end(self) -> int:
        """End it, if it lives, and tell its exit status: minus the number of the signal, if any."""
        if not self._over:
            self._popen.kill()
        try:
            status = self._popen.wait(_PATIENCE_S)
        except subprocess.TimeoutExpired:  # its output is closed, but it lives
            self._popen.kill()
            status = self._popen.wait()
        for pipe in (self._requests, self._answers):
            with contextlib.suppress(BrokenPipeError):  # a request that was not sent
                pipe.close()
        return status


def _widen(pipe: IO[bytes]) -> int:
    """Let a pipe hold more, where the system can do that; returns the bytes that it holds."""
    try:
        return fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, _PIPE)
    except (AttributeError, OSError):
        return _LEAST_PIPE
