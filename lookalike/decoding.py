"""Files become model inputs in a decoder process, and one that dies costs only its culprit.

A worker's decoder process reads, hashes, decodes and resizes ahead while the worker computes
vectors, within limits of memory and time. When it dies (a bug in a C library, a bomb), the file it
was at is tried once more in a fresh process with nothing else under way; if that dies too, the file
is the culprit and is rejected. All others go on.
"""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lookalike.decoder_process import Message, read_message, write_message
from lookalike.images import ImageLimits
from lookalike.outcomes import Decoded, Duplicate, Failed, Pixels
from lookalike.records import SourceFile

_AHEAD = 64
_AHEAD_BYTES = 64 << 20
_PATIENCE_S = 10.0
# Address space is what a decoder's memory is limited by, and threads reserve much of it.
_FRUGAL = {"MALLOC_ARENA_MAX": "1", "OMP_NUM_THREADS": "1"}
_ASKED = ("uri", "bytes", "version", "problem", "container", "offset")


@dataclass
class _Request:
    """A file under way; its hash is known once it was read."""

    file: SourceFile
    sha256: bytes | None = None


class Decoder:
    """A decoder process, started when first needed and replaced when it dies. Not thread-safe."""

    def __init__(self, sizes: Sequence[tuple[int, int]], limits: ImageLimits) -> None:
        """Decode to model inputs of these (height, width), each file within the limits."""
        self._sizes, self._limits = tuple(sizes), limits
        bytes_each = sum(height * width * 3 for height, width in sizes)
        self._ahead = max(2, min(_AHEAD, _AHEAD_BYTES // bytes_each))
        self._running: _Process | None = None

    def __enter__(self) -> Decoder:
        """Use as a context, which ends the process."""
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

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
        self, files: Iterable[SourceFile], *, once: bool
    ) -> Iterator[Decoded | Duplicate | Failed]:
        """Yield the outcome of each file, in order, some files being under way ahead of it.

        Args:
            files: What to decode.
            once: Whether bytes met before, among these files, are `Duplicate` and not decoded.
        """
        coming = iter(files)
        waiting: deque[_Request] = deque()
        seen: list[bytes] = []  # in this call; a fresh process is told
        finished = False
        try:
            process = self._process(seen)
            while True:
                for file in coming:
                    waiting.append(_Request(file))
                    process.ask(file, once)
                    if len(waiting) >= self._ahead:
                        break
                if not waiting:
                    break
                request = waiting.popleft()
                outcome = self._outcome(process, request)
                if outcome is None:
                    outcome = self._try_alone(process, request, seen, once)
                    if once and request.sha256:
                        seen.append(request.sha256)
                    process = self._process(seen)
                    for other in waiting:
                        process.ask(other.file, once)
                elif once and isinstance(outcome, Decoded):
                    seen.append(outcome.sha256)
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
            self._running.send({"sizes": self._sizes, "limits": asdict(self._limits)})
        self._running.send({"seen": [digest.hex() for digest in seen]})
        return self._running

    def _try_alone(
        self, died: _Process, request: _Request, seen: Sequence[bytes], once: bool
    ) -> Decoded | Duplicate | Failed:
        """What becomes of the file at which the process died."""
        if died.end() != -signal.SIGALRM:  # time runs out again the second time
            died = self._process(seen)
            died.ask(request.file, once)
            outcome = self._outcome(died, request)
            if outcome is not None:
                return outcome
        return _culprit(request, died.end(), self._limits)

    def _outcome(self, process: _Process, request: _Request) -> Decoded | Duplicate | Failed | None:
        """Wait for a file's outcome; None where the process dies before."""
        while (answer := process.answer()) is not None:
            head, body = answer
            if "format" in head:
                assert request.sha256 is not None
                return Decoded(
                    request.file, request.sha256, head["bytes"], head["width"], head["height"],
                    head["format"], self._arrays(body),
                )  # fmt: skip
            if "duplicate" in head:
                assert request.sha256 is not None
                return Duplicate(request.file, request.sha256)
            if "ignored" in head:
                return Failed(request.file, "ignored", sha256=request.sha256)
            if "rejected" in head:
                return Failed(
                    request.file, "rejected", head["rejected"], head["detail"], request.sha256
                )
            request.sha256 = bytes.fromhex(head["sha256"])
        return None

    def _arrays(self, body: bytes) -> tuple[Pixels, ...]:
        arrays, start = [], 0
        for height, width in self._sizes:
            count = height * width * 3
            array = np.frombuffer(body, np.uint8, count, start)
            arrays.append(array.reshape(height, width, 3))
            start += count
        return tuple(arrays)


def _culprit(request: _Request, status: int, limits: ImageLimits) -> Failed:
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
    return Failed(request.file, "rejected", reason, detail, request.sha256)


class _Process:
    """One decoder process, and the thread that takes in its answers."""

    def __init__(self) -> None:
        root = str(Path(__file__).resolve().parent.parent)
        paths = [root, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
        self._popen = subprocess.Popen(
            [sys.executable, "-m", "lookalike.decoder_process"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), **_FRUGAL},
        )
        self._answers: queue.SimpleQueue[Message | None] = queue.SimpleQueue()
        self._over = threading.Event()
        self._reader = threading.Thread(target=self._take_in, name="decoder", daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        """Number of the process."""
        return self._popen.pid

    @property
    def ended(self) -> bool:
        """Whether it has ended, by itself or not."""
        return self._over.is_set() or self._popen.poll() is not None

    def ask(self, file: SourceFile, once: bool) -> None:
        """Send a file to be decoded."""
        fields = {name: getattr(file, name) for name in _ASKED}
        self.send({"file": fields, "remember": once})

    def send(self, head: dict[str, Any]) -> None:
        """Send a request; one that has died shows when its answer is missing."""
        assert self._popen.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            write_message(self._popen.stdin, head)

    def answer(self) -> Message | None:
        """Wait for the next answer; None once it has died."""
        return self._answers.get()

    def end(self) -> int:
        """End it, if it lives, and tell its exit status: minus the number of the signal, if any."""
        if not self._over.is_set():
            self._popen.kill()
        try:
            status = self._popen.wait(_PATIENCE_S)
        except subprocess.TimeoutExpired:  # its output is closed, but it lives
            self._popen.kill()
            status = self._popen.wait()
        self._reader.join()
        for pipe in (self._popen.stdin, self._popen.stdout):
            assert pipe is not None
            with contextlib.suppress(BrokenPipeError):  # a request that was not sent
                pipe.close()
        return status

    def _take_in(self) -> None:
        # never waits for its reader, so that neither side ever waits for the other to read:
        # what may be under way is bounded by who asks
        assert self._popen.stdout is not None
        while (message := read_message(self._popen.stdout)) is not None:
            self._answers.put(message)
        self._over.set()
        self._answers.put(None)
