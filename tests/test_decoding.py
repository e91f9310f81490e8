"""Decoding in a process apart: files that end it, and all others."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lookalike.images.decoding import Decoder
from lookalike.images.limits import ImageLimits
from lookalike.images.preparing import prepare
from lookalike.outcomes import Decoded, Duplicate, Failed
from lookalike.pipelines.cli import main
from lookalike.records import SourceFile
from lookalike.sources.looking_up import look_up
from tests.conftest import picture

SIZES = [(32, 32), (24, 40)]
LIMITS = ImageLimits(max_seconds=2, max_memory=256 << 20)
# What a decoder with a fault does, when it meets the words after the end of a picture. Python reads
# sitecustomize as it starts, so this is in the decoder process, between it and the real decoder.
STUB = """
import os, sys
if sys.argv[:1] == ["-m"]:
    import lookalike.images.preparing as images
    real = images.prepare

    def prepare(data, name="", **options):
        if data.endswith(b"ABORT"):
            os.abort()
        if data.endswith(b"SEGFAULT"):
            import ctypes
            ctypes.string_at(0)
        if data.endswith(b"LEAVE"):
            os._exit(3)
        if data.endswith(b"MEMORY"):
            return bytearray(1 << 40)
        if data.endswith(b"HANG"):
            while True:
                pass
        return real(data, name, **options)

    images.prepare = prepare
"""


@pytest.fixture
def faulty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Decoder processes started from here on meet the stub."""
    (tmp_path / "stub").mkdir()
    (tmp_path / "stub" / "sitecustomize.py").write_text(STUB)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "stub"))


def write(folder: Path, name: str, seed: int, end: str = "") -> SourceFile:
    folder.mkdir(exist_ok=True)
    path = folder / name
    picture(seed).save(path, "PNG")
    with open(path, "ab") as file:
        file.write(end.encode())
    return look_up(str(path))


def test_inputs_are_those_of_prepare_in_this_process(tmp_path: Path) -> None:
    files = [write(tmp_path, f"{i}.png", i) for i in range(100)]
    with Decoder(SIZES, LIMITS) as decoder:
        for repeat in range(2):
            outcomes = [*decoder.decode(files, once=True)]
            assert [outcome.file for outcome in outcomes] == files, repeat
            for one in outcomes:
                assert isinstance(one, Decoded)
                expected = prepare(Path(one.file.uri).read_bytes(), one.file.uri, sizes=SIZES)
                for found, wanted in zip(one.inputs, expected.arrays, strict=True):
                    np.testing.assert_array_equal(found, wanted)
                assert (one.width, one.height, one.format) == (64, 48, "PNG")


def test_every_kind_of_file_has_its_outcome(tmp_path: Path) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 not much of a picture")
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "text.png").write_bytes(b"hello")
    (tmp_path / "notes.json").write_bytes(b"{}")
    (tmp_path / "large.bin").write_bytes(bytes(5000))
    (tmp_path / "large.jpg").write_bytes(bytes(5000))
    good = write(tmp_path, "good.png", 1)
    copy = write(tmp_path, "copy.png", 1)
    lost = SourceFile(str(tmp_path / "lost.png"), 10, "1")
    names = ("broken.jpg", "empty.png", "text.png", "notes.json", "large.bin", "large.jpg")
    files = [good, *(look_up(str(tmp_path / name)) for name in names), copy, lost]
    problem = SourceFile("/far/away.jpg", -1, "", "folder not readable")
    limits = ImageLimits(max_bytes=4900)
    with Decoder(SIZES, limits) as decoder:
        outcomes = [*decoder.decode([*files, problem], once=True)]
        again = [*decoder.decode([copy, good], once=False)]
    assert isinstance(outcomes[0], Decoded)
    assert isinstance(outcomes[7], Duplicate)
    assert outcomes[7].sha256 == outcomes[0].sha256
    assert [(o.status, o.reason) for o in outcomes if isinstance(o, Failed)] == [
        ("rejected", "truncated"),
        ("ignored", "empty"),
        ("rejected", "not_an_image"),
        ("ignored", "no_image"),
        ("ignored", "no_image"),
        ("rejected", "too_many_bytes"),
        ("rejected", "unreadable"),
        ("rejected", "unreadable"),
    ]
    assert "5,000 bytes, the limit is 4,900" in outcomes[6].detail
    assert [type(one) for one in again] == [Decoded, Decoded]


@pytest.mark.slow
@pytest.mark.usefixtures("faulty")
def test_a_file_that_ends_the_decoder_is_the_only_one_lost(tmp_path: Path) -> None:
    ends = {5: "ABORT", 6: "SEGFAULT", 20: "LEAVE", 21: "HANG", 30: "MEMORY", 39: "ABORT"}
    files = [write(tmp_path / "p", f"{i:02d}.png", i, ends.get(i, "")) for i in range(40)]
    same = write(tmp_path / "p", "same as 5.png", 5, "ABORT")  # not tried again: one process less
    first = write(tmp_path / "p", "same as 0.png", 0)
    with Decoder(SIZES, LIMITS) as decoder:
        outcomes = [*decoder.decode([*files, same, first], once=True)]
    assert [one.file for one in outcomes] == [*files, same, first]
    failed = {i: one for i, one in enumerate(outcomes) if isinstance(one, Failed)}
    reasons = {i: one.reason for i, one in failed.items()}
    crashed = dict.fromkeys((5, 6, 20, 39), "crashed")
    assert reasons == {**crashed, 21: "timed_out", 30: "out_of_memory"}
    assert "signal 6 (SIGABRT)" in failed[5].detail
    assert "signal 11 (SIGSEGV)" in failed[6].detail
    assert "ended with status 3" in failed[20].detail
    assert "more than 2 s (images.max_seconds)" in failed[21].detail
    assert all(one.sha256 for one in failed.values())
    assert [type(one) for one in outcomes[-2:]] == [Duplicate, Duplicate]
    assert len([one for one in outcomes if isinstance(one, Decoded)]) == 34


@pytest.mark.slow
@pytest.mark.usefixtures("faulty")
@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ends=st.lists(st.sampled_from(["", "", "", "ABORT", "LEAVE"]), max_size=12))
def test_any_mixture_gives_each_file_its_own_outcome(tmp_path: Path, ends: list[str]) -> None:
    files = [write(tmp_path / "p", f"{i}{end}.png", i, end) for i, end in enumerate(ends)]
    with Decoder(SIZES, LIMITS) as decoder:
        outcomes = [*decoder.decode(iter(files), once=True)]
    assert [one.file for one in outcomes] == files
    assert [isinstance(one, Decoded) for one in outcomes] == [not end for end in ends]


def test_a_decoder_killed_from_outside_costs_nothing(tmp_path: Path) -> None:
    files = [write(tmp_path, f"{i}.png", i) for i in range(150)]

    def killing(decoder: Decoder) -> Iterator[SourceFile]:
        for i, file in enumerate(files):
            if i in (0, 70, 149):
                assert decoder.pid
                os.kill(decoder.pid, signal.SIGKILL)
            yield file

    with Decoder(SIZES, LIMITS) as decoder:
        outcomes = [*decoder.decode(killing(decoder), once=True)]
    assert [one.file for one in outcomes] == files
    assert {type(one) for one in outcomes} == {Decoded}


def test_a_decoding_given_up_leaves_nothing_for_the_next(tmp_path: Path) -> None:
    files = [write(tmp_path, f"{i}.png", i) for i in range(20)]
    with Decoder(SIZES, LIMITS) as decoder:
        some = decoder.decode(files, once=True)
        next(some)
        some.close()
        outcomes = [*decoder.decode(files[10:], once=True)]
        assert [one.file for one in outcomes] == files[10:]
        process = decoder._running._popen
    assert process.poll() is not None


def test_a_decoder_whose_parent_is_gone_ends(tmp_path: Path) -> None:
    with Decoder(SIZES, LIMITS) as decoder:
        decoder.start()
        process = decoder._running._popen
        process.stdin.close()  # as the system does when the parent dies, however it dies
        for _ in range(100):
            if process.poll() is not None:
                break
            time.sleep(0.1)
        assert process.returncode == 0


@pytest.mark.slow
@pytest.mark.usefixtures("faulty")
def test_a_run_keeps_everything_but_the_culprits(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for i in range(40):
        write(tmp_path / "p", f"{i}.png", i, {7: "ABORT", 23: "SEGFAULT"}.get(i, ""))
    config = tmp_path / "config.yaml"
    config.write_text(
        "features: [{name: low, handle: 'builtin:color-texture'}]\nrunner: {workers: 2}\n"
    )
    store = str(tmp_path / "store")
    arguments = ["index", "--config", str(config), "--images", str(tmp_path / "p"), "--json"]
    assert main([*arguments, "--store", store]) == 0
    out = capfd.readouterr()
    assert '"crashed": 2' in out.out
    assert '"embedded": 38' in out.out
    assert main(["verify", "--store", store]) == 0
