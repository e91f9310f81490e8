"""`python -m lookalike.images.decoder_process`: bytes become pixels in a process of their own.

Decoders are C code that meets hostile input. Here one may crash, or take all the memory or time it
is allowed, and nothing is lost but this process: `lookalike.images.decoding` starts another.
Requests come on standard input and answers leave on standard output, as messages of a JSON head
and raw bytes; neither side runs code that the other sends.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import resource
import signal
import struct
import sys
from collections.abc import Iterator, Mapping
from typing import IO, Any

from lookalike.errors import one_line
from lookalike.images.cropping import Crop, CropError, asked_crop
from lookalike.images.functions import Function, FunctionFailedError, Functions
from lookalike.images.limits import ImageLimits
from lookalike.images.preparing import prepare
from lookalike.images.rejections import NotAnImage, Rejected
from lookalike.images.system_files import system_folder, system_name
from lookalike.records import SourceFile
from lookalike.sources.contents import Contents, CutShortError, claimed_name
from lookalike.sources.sniff import SNIFF_BYTES, claims_image, sniff

Message = tuple[dict[str, Any], bytes]
_SIZES = struct.Struct("<II")  # of head and body


def encode_message(head: Mapping[str, Any], body: bytes = b"") -> bytes:
    """One message as it is sent."""
    text = json.dumps(head).encode()
    return b"".join((_SIZES.pack(len(text), len(body)), text, body))


def read_message(stream: IO[bytes]) -> Message | None:
    """Receive one message; None where the other side has ended."""
    sizes = stream.read(_SIZES.size)
    if len(sizes) < _SIZES.size:
        return None
    head_size, body_size = _SIZES.unpack(sizes)
    head, body = stream.read(head_size), stream.read(body_size)
    if len(head) < head_size or len(body) < body_size:
        return None
    return json.loads(head), body


def main() -> None:
    """Answer requests until standard input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the launching process heeds it
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a crash here is expected, and is told
    requests, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    with open(os.devnull, "wb") as nowhere:  # what decoders print must not mix with the answers
        os.dup2(nowhere.fileno(), 1)
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as score:
        score.write("1000")  # when the machine runs out of memory, this process goes first
    first = read_message(requests)
    if first is None:
        return
    sizes = [(int(height), int(width)) for height, width in first[0]["sizes"]]
    limits = ImageLimits(**first[0]["limits"])
    inputs = Functions(
        [Function(**{**one, "size": tuple(one["size"])}) for one in first[0]["functions"]], sizes
    )
    seen: set[str] = set()
    with Contents() as contents:
        while message := read_message(requests):
            head = message[0]
            if "seen" in head:  # a new beginning
                seen = set(head["seen"])
                continue
            file = SourceFile(**head["file"])
            known = seen if head["remember"] else None
            crop = asked_crop(head["crop"])
            head, body = answer_file(file, contents, inputs, limits, known, crop)
            answers.write(encode_message(head, body))
            answers.flush()


def answer_file(
    file: SourceFile,
    contents: Contents,
    inputs: Functions,
    limits: ImageLimits,
    seen: set[str] | None,
    crop: Crop | None = None,
) -> Message:
    """The answer to one request: the file's outcome, with its hash where it could be read.

    Args:
        file: What to read.
        contents: Reads it.
        inputs: What to make of a picture.
        limits: What it may cost.
        seen: Hashes met before, in hex, which are not decoded again; this one's is added.
        crop: The part of the picture to take, where that is not all.
    """
    name, known = claimed_name(file), {}
    try:
        if said := system_folder(name) or (file.problem and system_name(name)):
            raise NotAnImage(said, "system_file")
        if file.problem:
            raise Rejected("unreadable", file.problem)
        if file.bytes > limits.max_bytes:
            # a large file of another kind is none of our business; a large image is
            if not claims_image(name) and sniff(contents.read(file, SNIFF_BYTES)) is None:
                raise NotAnImage(
                    "larger than images.max_bytes; neither content nor name says image"
                )
            raise Rejected(
                "too_many_bytes",
                f"{file.bytes:,} bytes, the limit is {limits.max_bytes:,} (images.max_bytes)",
            )
        data = contents.read(file)
        digest = hashlib.sha256(data).hexdigest()
        known = {"sha256": digest}
        if seen is not None and digest in seen:
            return {**known, "duplicate": True}, b""
        with bounded(limits):
            picture = prepare(data, name, sizes=inputs.sizes, limits=limits, crop=crop)
            arrays = inputs(picture.arrays)
    except FunctionFailedError as error:
        return {**known, "rejected": "model_failed", "detail": str(error)}, b""
    except CropError as error:
        return {**known, "rejected": "crop", "detail": str(error)}, b""
    except NotAnImage as other:
        return {**known, "ignored": other.reason, "detail": other.detail}, b""
    except Rejected as rejected:
        if rejected.reason == "empty":  # a placeholder, which says nothing of pictures
            return {**known, "ignored": "empty", "detail": rejected.detail}, b""
        return {**known, "rejected": rejected.reason, "detail": rejected.detail}, b""
    except CutShortError as error:  # by the end of its container: what it holds, nobody can tell
        return {**known, "rejected": "unreadable", "detail": one_line(error)}, b""
    except OSError as error:
        detail = error.strerror or one_line(error)
        if said := system_name(name):
            return {**known, "ignored": "system_file", "detail": f"{said}: {detail}"}, b""
        return {**known, "rejected": "unreadable", "detail": detail}, b""
    except MemoryError:
        detail = f"decoding needs more than {limits.max_memory >> 20} MiB (images.max_memory)"
        return {**known, "rejected": "out_of_memory", "detail": detail}, b""
    except Exception as error:  # a fault of ours: one file must not cost the others all the same
        detail = f"{type(error).__name__}: {one_line(error)}"
        return {**known, "rejected": "crashed", "detail": detail}, b""
    if seen is not None:  # not what failed: that may hang on the name
        seen.add(digest)
    size = {"bytes": len(data), "width": picture.width, "height": picture.height}
    body = b"".join(array.tobytes() for array in arrays)
    return {**known, **size, "format": picture.format}, body


@contextlib.contextmanager
def bounded(limits: ImageLimits) -> Iterator[None]:
    """Hold this process to the limits of memory and time while it decodes one picture.

    Past the time it is ended by SIGALRM, which no C code can put off. Past the memory, what it
    allocates fails: a decoder reports that, or dies of it. (Where the system does not count address
    space, such as macOS, the estimate from the header is the only limit of memory.)
    """
    before = resource.getrlimit(resource.RLIMIT_AS)
    used = _address_space()
    if used:
        allowed = used + limits.max_memory + _SLACK
        if before[1] != resource.RLIM_INFINITY:
            allowed = min(allowed, before[1])
        resource.setrlimit(resource.RLIMIT_AS, (allowed, before[1]))
    signal.setitimer(signal.ITIMER_REAL, limits.max_seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        if used:
            resource.setrlimit(resource.RLIMIT_AS, before)


_SLACK = 64 << 20  # the estimate of memory is of the decoder's own, without what Python needs


def _address_space() -> int:
    """Bytes of address space in use, 0 where the system does not tell."""
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


if __name__ == "__main__":
    main()
