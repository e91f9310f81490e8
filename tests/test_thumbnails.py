from __future__ import annotations

import io
import os
import tarfile
import time

import pytest
from PIL import Image

from lookalike.images.thumbnails import SIDE, Thumbnails


def save(path, size=(800, 400), color=(200, 30, 40)):
    Image.new("RGB", size, color).save(path)
    return str(path)


def made(uris, seconds=30.0):
    return Thumbnails().make(uris, seconds)


def test_pictures_keep_their_shape_and_what_is_none_is_left_out(tmp_path):
    wide, tall = save(tmp_path / "wide.jpg"), save(tmp_path / "tall.png", (30, 3000))
    text = tmp_path / "words.jpg"
    text.write_text("no picture")
    os.mkfifo(tmp_path / "pipe.jpg")  # reading it would wait for ever
    others = [str(text), str(tmp_path / "pipe.jpg"), str(tmp_path / "gone.jpg"), "s3:/x", ""]
    found = made([wide, *others, tall, wide])
    assert set(found) == {wide, tall}
    with Image.open(io.BytesIO(found[wide])) as image:
        assert image.size == (SIDE, SIDE // 2)
        assert all(
            abs(a - b) < 12 for a, b in zip(image.getpixel((9, 9)), (200, 30, 40), strict=True)
        )
    with Image.open(io.BytesIO(found[tall])) as image:
        assert image.size == (2, SIDE)


def test_what_there_is_of_a_cut_picture_is_shown(tmp_path):
    path = tmp_path / "cut.jpg"
    Image.effect_noise((400, 400), 80).convert("RGB").save(path, quality=90)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert set(made([str(path)])) == {str(path)}


def test_members_of_shards_are_found_but_not_in_large_ones(tmp_path, monkeypatch):
    picture, shard = tmp_path / "a.png", tmp_path / "shard.tar"
    save(picture)
    with tarfile.open(shard, "w") as tar:
        tar.add(picture, "in/a.png")
    uri = f"{shard}#in/a.png"
    assert set(made([uri])) == {uri}
    monkeypatch.setattr("lookalike.images.thumbnails._MOST_CONTAINER", 100)
    assert made([uri]) == {}


@pytest.mark.parametrize("seconds", [0, 0.01])
def test_time_that_is_over_leaves_files_out(tmp_path, seconds):
    uris = [save(tmp_path / f"{i}.png", (2000, 2000)) for i in range(40)]
    began = time.monotonic()
    found = made(uris, seconds)
    assert time.monotonic() - began < 5
    assert len(found) < len(uris)


def test_the_decoder_is_ended(tmp_path):
    small = Thumbnails()
    small.start()
    process = small._decoder.pid
    assert process
    small.make([save(tmp_path / "a.png")], 30)
    deadline = time.monotonic() + 10
    while small._decoder.pid and time.monotonic() < deadline:
        time.sleep(0.05)
    assert small._decoder.pid is None
    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)
