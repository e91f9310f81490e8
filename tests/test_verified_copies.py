"""What a picture is to another, on made pictures of every edit; and groups with it."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image, ImageDraw, ImageFilter

from lookalike.pipelines.cli import main

pytest.importorskip("cv2")
from lookalike.copies.geometry import LOOK_ALIKE, RELATIONS, View, relation

Edit = Callable[[Image.Image], Image.Image]


def textured(seed: int, size: tuple[int, int] = (640, 480)) -> Image.Image:
    """A picture of shapes and lines before a soft background, other ones for every seed."""
    rng = np.random.default_rng(seed)
    ground = Image.fromarray(rng.integers(40, 216, (6, 8, 3), dtype=np.uint8))
    image = ground.resize(size, Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(image)
    for _ in range(90):
        x, y = (int(rng.integers(0, side)) for side in size)
        w, h = rng.integers(8, 90, 2).tolist()
        colour = tuple(rng.integers(0, 256, 3).tolist())
        kind = (draw.ellipse, draw.rectangle, draw.line)[int(rng.integers(3))]
        kind((x, y, x + w, y + h), fill=colour, **({"width": 5} if kind == draw.line else {}))
    return image.filter(ImageFilter.GaussianBlur(0.8))


def encoded(image: Image.Image, quality: int = 90) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(io.BytesIO(buffer.getvalue())).convert("RGB")


def cropped(image: Image.Image) -> Image.Image:
    """To 80 per cent of its area."""
    w, h = image.size
    return image.crop((w // 20, h // 18, w // 20 + int(0.894 * w), h // 18 + int(0.894 * h)))


def framed(image: Image.Image) -> Image.Image:
    w, h = image.size
    whole = Image.new("RGB", (w + w // 8, h + w // 8), (12, 12, 14))
    whole.paste(image, (w // 16, w // 16))
    return whole


def marked(image: Image.Image) -> Image.Image:
    over = Image.new("RGBA", image.size)
    draw = ImageDraw.Draw(over)
    w, h = image.size
    for y in (h // 5, h // 2, 4 * h // 5):
        draw.text((w // 8, y), "SPECIMEN", fill=(255, 255, 255, 170), font_size=h // 7)
    return Image.alpha_composite(image.convert("RGBA"), over).convert("RGB")


EDITS: dict[str, tuple[Edit, str]] = {
    "jpeg": (lambda image: encoded(image, 30), "re-encode"),
    "brighter": (lambda image: image.point(lambda value: min(255, value + 25)), "re-encode"),
    "half": (lambda image: image.resize((image.width // 2, image.height // 2)), "resize"),
    "crop": (cropped, "crop"),
    "border": (framed, "border"),
    "flip": (lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT), "flip"),
    "turned flip": (lambda image: image.transpose(Image.Transpose.FLIP_TOP_BOTTOM), "flip"),
    "rotate": (lambda image: image.rotate(5, Image.Resampling.BICUBIC), "rotation"),
    "quarter": (lambda image: image.transpose(Image.Transpose.ROTATE_90), "rotation"),
    "upside down": (lambda image: image.transpose(Image.Transpose.ROTATE_180), "rotation"),
    "watermark": (marked, "overlay"),
    "small crop": (lambda image: cropped(image).resize((280, 210)), "crop"),
    "flipped crop": (lambda image: EDITS["flip"][0](cropped(image)), "flip"),
}


def view(image: Image.Image) -> View:
    longest = max(image.size)
    size = tuple(max(1, round(512 * side / longest)) for side in image.size)
    return View(np.asarray(image.convert("L").resize(size)), *image.size)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("edit", EDITS)
def test_an_edit_is_told_by_its_name(edit: str, seed: int) -> None:
    original = textured(seed)
    change, want = EDITS[edit]
    found = relation(view(original), view(encoded(change(original))))
    assert found == want
    assert found in RELATIONS


def test_the_picture_itself_is_a_re_encode() -> None:
    assert relation(view(textured(1)), view(textured(1))) == "re-encode"


@pytest.mark.parametrize("seed", range(4))
def test_other_pictures_are_look_alikes(seed: int) -> None:
    """Of one size and one kind, and one that shares a third of the other's area."""
    one, two = textured(seed), textured(100 + seed)
    assert relation(view(one), view(two)) == LOOK_ALIKE
    two.paste(one.crop((0, 0, 220, 480)), (380, 0))
    assert relation(view(one), view(two)) == LOOK_ALIKE


def test_pictures_with_nothing_in_them() -> None:
    """Plain ones are alike, whatever their size; beside a picture they are not."""
    plain = view(Image.new("RGB", (300, 200), (90, 120, 90)))
    small = view(Image.new("RGB", (150, 100), (90, 120, 90)))
    assert relation(plain, small) == "resize"
    assert relation(plain, plain) == "re-encode"
    assert relation(view(textured(1, (300, 200))), plain) == LOOK_ALIKE
    dot = view(Image.new("RGB", (1, 1)))
    assert relation(plain, dot) in RELATIONS
    assert relation(dot, dot) in RELATIONS


# --- groups -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two scenes of the same colours, edits of both, one with a second name, one lost."""
    root = tmp_path_factory.mktemp("verified")
    folder = root / "pictures"
    folder.mkdir()
    for name, seed in (("a", 7), ("b", 8)):
        original = textured(seed)
        original.save(folder / f"{name}.png")
        for edit in ("jpeg", "half", "crop", "flip"):
            EDITS[edit][0](original).save(folder / f"{name}-{edit}.png")
    (folder / "a-same.png").write_bytes((folder / "a-half.png").read_bytes())
    textured(7).save(folder / "a-gone.png", compress_level=1)
    config = root / "config.yaml"
    config.write_text(
        "features: [{name: low, handle: 'builtin:color-texture'}]\nrunner: {workers: 1}\n"
    )
    assert (
        main(
            [
                "index",
                "--config",
                str(config),
                "--images",
                str(folder),
                "--store",
                str(root / "store"),
            ]
        )
        == 0
    )
    (folder / "a-gone.png").unlink()
    return root


def test_groups_say_what_each_picture_is(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """At a threshold that takes all pictures for one group."""
    output, page = tmp_path / "a.parquet", tmp_path / "a.html"
    given = [
        "duplicates",
        "--store",
        str(place / "store"),
        "--threshold",
        "0.05",
        "--output",
        str(output),
        "--html",
        str(page),
    ]
    assert main(given) == 0
    plain = pq.read_table(output).to_pylist()
    assert {row["group"] for row in plain} == {1}
    assert len(plain) == 12
    assert sum(row["keep"] for row in plain) == 1
    capsys.readouterr()
    assert main([*given, "--verify", "geometric", "--json"]) == 0
    rows = {Path(row["uri"]).name: row for row in pq.read_table(output).to_pylist()}
    assert set(rows) == {Path(row["uri"]).name for row in plain}
    first = next(iter(rows))
    kinds = {name: row["relation"] for name, row in rows.items()}
    # Of equal pixels that with most bytes is kept: the original, or its flip.
    assert kinds["a-gone.png"] == "unreadable"
    assert rows["a-gone.png"]["keep"]
    kept = {name for name, row in rows.items() if row["keep"] and name != "a-gone.png"}
    assert sorted(name[0] for name in kept) == ["a", "b"]
    for name, row in rows.items():
        if row["keep"]:
            assert row["copy_of"] is None
            continue
        of = Path(row["copy_of"]).name
        assert of in kept
        assert of[0] == name[0]
    assert kinds["a-half.png"] in ("resize", "flip")
    assert kinds["a-half.png"] == kinds["a-same.png"]
    assert {kinds["a-crop.png"], kinds["b-crop.png"]} <= {"crop", "flip"}
    [second] = kept - {first} if first in kept else [kept - {first}]
    assert rows[second]["relation"] in (LOOK_ALIKE, None)
    told = json.loads(capsys.readouterr().out)
    assert told["relations"]["unreadable"] == 1
    assert told["copies"] == 9
    last = ""  # each picture to keep has its copies behind it
    for name, row in rows.items():
        last = name if row["keep"] else last
        assert row["keep"] or Path(row["copy_of"]).name == last
    text = page.read_text()
    assert "file not readable now" in text
    assert text.count("<b>keep</b>") == 3


def test_without_opencv_it_is_said_at_once(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    from lookalike.pipelines import duplicates

    monkeypatch.setattr(duplicates, "find_spec", lambda name: None)
    given = ["--store", str(place / "store"), "--output", str(tmp_path / "a.csv")]
    assert main(["duplicates", *given, "--verify", "geometric"]) == 2
    assert "pip install 'lookalike[opencv]'" in capsys.readouterr().err
    assert main(["duplicates", *given]) == 0
