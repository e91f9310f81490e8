"""`python -m tests.fuzz [--images DIR] --seconds 3600`: mutated files through the decode path.

Files are damaged in the ways that decoders are known to fall over, and go through `Decoder`, the
very way that files take when indexing. Every file must end as a picture, a reject or ignored, in
the time allowed, and the processes must not grow. What ends a decoder process is kept with --keep.
Beside the pictures named, small ones of every format and of its rare layouts are damaged.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from lookalike.images.decoding import Decoder
from lookalike.images.limits import ImageLimits
from lookalike.outcomes import Decoded, Failed
from lookalike.sources.kinds import open_source
from lookalike.sources.looking_up import look_up
from lookalike.store.storage import read_bytes
from tests.fuzz_seeds import made_seeds

BATCH = 100
MAX_SEED = 1 << 20  # bytes
SIZES = [(224, 224), (128, 128)]
PATIENCE_S = 15  # beyond the limit: starting a process twice, on a busy machine

Mutation = Callable[[bytearray, random.Random], None]


def flip_bits(data: bytearray, chance: random.Random) -> None:
    for _ in range(chance.choice((1, 2, 8, 64))):
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)


def flip_in_the_header(data: bytearray, chance: random.Random) -> None:
    for _ in range(chance.choice((1, 2, 4))):
        data[chance.randrange(min(len(data), 512))] = chance.randrange(256)


def extreme_number(data: bytearray, chance: random.Random) -> None:
    """Sizes and counts are where decoders believe too much."""
    width = chance.choice((1, 2, 4))
    value = chance.choice((0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF))
    at = chance.randrange(min(len(data), chance.choice((64, 1024, 1 << 20))))
    order = chance.choice(("little", "big"))
    data[at : at + width] = (value & (256**width - 1)).to_bytes(width, order)


def cut_off(data: bytearray, chance: random.Random) -> None:
    del data[chance.randrange(len(data)) :]


def cut_out(data: bytearray, chance: random.Random) -> None:
    at = chance.randrange(len(data))
    del data[at : at + chance.choice((1, 2, 100, 5000))]


def repeat(data: bytearray, chance: random.Random) -> None:
    at = chance.randrange(len(data))
    data[at:at] = data[at : at + chance.choice((4, 100, 5000))] * chance.choice((1, 2, 50))


def noise(data: bytearray, chance: random.Random) -> None:
    at = chance.randrange(len(data))
    data[at : at + 200] = chance.randbytes(min(200, len(data) - at))


def shuffle_parts(data: bytearray, chance: random.Random) -> None:
    a, b = sorted(chance.randrange(len(data)) for _ in range(2))
    data[a:] = data[b:] + data[a:b]


MUTATIONS: tuple[Mutation, ...] = (
    flip_bits,
    flip_in_the_header,
    extreme_number,
    cut_off,
    cut_out,
    repeat,
    noise,
    shuffle_parts,
)


def mutate(seeds: Sequence[bytes], chance: random.Random) -> bytes:
    """One damaged file: a seed changed once to thrice, at times with the end of another seed."""
    data = bytearray(chance.choice(seeds))
    if chance.random() < 0.1:
        data[len(data) // 2 :] = chance.choice(seeds)[-(1 << 16) :]
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        if data:
            chance.choice(MUTATIONS)(data, chance)
    return bytes(data)


def resident(pid: str | int) -> int:
    """Bytes of memory that a process holds."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096


def main(argv: Sequence[str] | None = None) -> int:
    """Fuzz, say how it went; 1 where a file had no outcome, took too long, or memory grew."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--images", metavar="SRC", action="append", default=[])
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--max-seconds", type=float, default=10, help="allowed for one file")
    parser.add_argument("--max-memory", type=int, default=1 << 30, help="bytes, for one file")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", metavar="DIR", help="keep what ends a decoder process here")
    given = parser.parse_args(argv)
    seeds = [
        data
        for spec in given.images
        for file in open_source(spec).files(lambda line: None)
        if not file.problem and 0 < file.bytes <= MAX_SEED and (data := read_bytes(file.uri))
    ]
    seeds += made_seeds()
    print(f"{len(seeds)} seeds", flush=True)
    chance, counts, reasons = random.Random(given.seed), Counter[str](), Counter[str]()
    limits = ImageLimits(max_seconds=given.max_seconds, max_memory=given.max_memory)
    longest, memory, ours = 0.0, [], []
    began = said = time.monotonic()
    with TemporaryDirectory(prefix="fuzz-") as folder, Decoder(SIZES, limits) as decoder:
        while time.monotonic() - began < given.seconds:
            files = []
            for number in range(BATCH):
                path = Path(folder) / f"{number:03d}.jpg"
                path.write_bytes(mutate(seeds, chance))
                files.append(look_up(str(path)))
            asked = time.monotonic()
            for number, outcome in enumerate(decoder.decode(files, once=False)):
                longest, asked = max(longest, time.monotonic() - asked), time.monotonic()
                assert outcome.file == files[number]
                counts[type(outcome).__name__] += 1
                if isinstance(outcome, Failed):
                    reasons[outcome.reason or outcome.status] += 1
                    if given.keep and outcome.reason in ("crashed", "timed_out"):
                        name = f"{outcome.reason}-{given.seed}-{sum(counts.values())}"
                        (Path(given.keep) / name).write_bytes(Path(outcome.file.uri).read_bytes())
                        print(name, outcome.detail, flush=True)
                else:
                    assert isinstance(outcome, Decoded)
                    assert [one.shape[:2] for one in outcome.inputs] == SIZES
            if decoder.pid:
                memory.append(resident(decoder.pid))
            ours.append(resident("self"))
            if time.monotonic() - said > 60:
                said = time.monotonic()
                line = f"{said - began:6.0f} s {sum(counts.values()):9,} files {dict(counts)} "
                line += f"longest {longest:.1f} s, decoder {memory[-1] >> 20} MiB"
                print(f"{line}, here {ours[-1] >> 20} MiB", flush=True)
    print(f"{sum(counts.values()):,} mutated files: {dict(counts)}; {dict(reasons.most_common())}")
    fine = longest < given.max_seconds + PATIENCE_S
    print(f"longest wait for one {longest:.1f} s, {given.max_seconds:g} s allowed")
    for name, sizes in (("decoder", memory), ("this process", ours)):
        part = max(1, len(sizes) // 10)
        early, late = median(sizes[part : 3 * part] or sizes), median(sizes[-2 * part :])
        print(f"memory of {name}: {int(early) >> 20} MiB early, {int(late) >> 20} MiB late")
        fine &= late < 1.25 * early + (32 << 20)
    print("fine" if fine else "NOT FINE")
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
