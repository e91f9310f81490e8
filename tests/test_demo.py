import hashlib
import io
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from examples.demo import pictures as demo
from examples.demo.__main__ import main


def digests(folder):
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """A demo with twelve pictures a group (the odd files stand among them), to save time."""
    folder = tmp_path_factory.mktemp("demo") / "new" / "demo"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demo, "PICTURES_PER_GROUP", 12)
        patch.setattr(demo, "QUERIES_PER_GROUP", 1)
        demo.write_demo(folder)
        yield folder


def test_counts():
    paths = [path for path, _ in demo.recipes()]
    assert len(paths) == len(set(paths)) == 10 * 36 + 20 + 4
    groups = Counter(path.split("/")[1] for path in paths if path.count("/") == 2)
    assert groups == dict.fromkeys(demo.SCENES, 36) | {"forest": 37, "galaxy": 37, "city": 37}
    assert sum(path.startswith("queries/") for path in paths) == 20


def test_the_files_are_those_of_the_recipes(drawn):
    assert set(digests(drawn)) == {path for path, _ in demo.recipes()} | {demo.MARKER}
    assert (drawn / "pictures" / "notes.txt").read_text().startswith("A text file")


def test_all_but_the_truncated_picture_decode(drawn):
    broken = []
    for path in [*(drawn / "pictures").rglob("*.jpg"), *(drawn / "queries").iterdir()]:
        try:
            with Image.open(path) as image:
                image.load()
                assert min(image.size) >= 320
        except OSError as error:
            broken.append((path.name, "truncated" in str(error)))
    assert broken == [("city-half-downloaded.jpg", True)]


def test_only_the_two_copies_are_duplicates(drawn):
    pictures = list((drawn / "pictures").rglob("*.*")) + list((drawn / "queries").iterdir())
    contents = {}
    for path in pictures:
        contents.setdefault(path.read_bytes(), set()).add(path.name)
    assert sorted(sorted(names) for names in contents.values() if len(names) > 1) == [
        ["copy of forest-02.jpg", "forest-02.jpg"],
        ["galaxy-05 (1).jpg", "galaxy-05.jpg"],
    ]


def test_the_odd_files_are_what_they_claim(drawn):
    assert (drawn / "pictures" / "seascape" / "Été à la mer.jpg").is_file()
    with Image.open(drawn / "pictures" / "balloons" / "balloons-11-alpha.png") as image:
        assert image.mode == "RGBA"
        assert image.getchannel("A").getextrema() == (0, 255)


def test_the_rotated_picture_is_upright_after_its_orientation_tag(drawn):
    with Image.open(drawn / "pictures" / "mountains" / "mountains-04-rotated.jpg") as stored:
        assert stored.getexif()[0x0112] == 6
        turned = np.asarray(stored.transpose(Image.Transpose.ROTATE_270), np.int16)
    upright = np.asarray(demo.draw("mountains", 4)[0], np.int16)
    assert turned.shape == upright.shape
    assert np.abs(turned - upright).mean() < 6  # JPEG's loss


@pytest.mark.parametrize("group", demo.SCENES)
def test_scenes_are_deterministic_and_each_its_own(group, drawn):
    assert demo.encode(group, 0) == (drawn / "pictures" / group / f"{group}-00.jpg").read_bytes()
    image, quality = demo.draw(group, 1)
    assert 74 <= quality < 94
    assert image.size in demo.SIZES
    assert np.asarray(image).std() > 8  # something is drawn
    with Image.open(io.BytesIO(demo.encode(group, 2))) as other:
        assert np.asarray(other.resize((64, 64))).tobytes() != image.resize((64, 64)).tobytes()


def test_a_second_run_writes_only_what_is_missing(drawn):
    before = digests(drawn)
    (drawn / "queries" / "city-12.jpg").unlink()
    (drawn / "pictures" / "mine.jpg").write_bytes(b"mine")
    assert demo.write_demo(drawn) == 1
    assert (drawn / "pictures" / "mine.jpg").read_bytes() == b"mine"
    (drawn / "pictures" / "mine.jpg").unlink()
    assert digests(drawn) == before


def test_a_run_cut_short_starts_over(tmp_path, monkeypatch):
    monkeypatch.setattr(demo, "PICTURES_PER_GROUP", 1)
    monkeypatch.setattr(demo, "QUERIES_PER_GROUP", 0)
    monkeypatch.setattr(demo, "BESIDE", {})
    half = tmp_path / "pictures" / "balloons" / "balloons-00.jpg"
    (tmp_path / demo.MARKER).touch()  # as a run that did not finish leaves it
    half.parent.mkdir(parents=True)
    half.write_bytes(b"half")
    assert demo.write_demo(tmp_path) == 10
    assert half.read_bytes() == demo.encode("balloons", 0)
    assert demo.write_demo(tmp_path) == 0


def test_a_folder_of_somebody_else_is_left_alone(tmp_path, capsys):
    (tmp_path / "holiday.jpg").write_bytes(b"precious")
    assert main([str(tmp_path)]) == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    assert "holds files that the demo did not make" in message
    assert digests(tmp_path) == {"holiday.jpg": hashlib.sha256(b"precious").hexdigest()}


def test_a_file_is_no_folder(tmp_path, capsys):
    (tmp_path / "demo").write_text("x")
    assert main([str(tmp_path / "demo")]) == 2
    assert "needs a folder" in capsys.readouterr().err
