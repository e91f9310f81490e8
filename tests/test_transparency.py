"""Pictures with alpha are blended with white, but for those that would vanish there."""

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageFont

from lookalike.images.preparing import decode, prepare
from tests.image_files import difference, encode, scene


def glyph(seed=3, side=64, white=255, hidden=(255, 255, 255)):
    """A drawing in one gray with soft edges; `hidden` is the colour where nothing is drawn."""
    chance, shape = random.Random(seed), Image.new("L", (4 * side, 4 * side))
    pen = ImageDraw.Draw(shape)
    for draw in (pen.ellipse, pen.rectangle, pen.ellipse):
        x, y = (chance.randrange(10, 80) * side // 32 for _ in range(2))
        draw((x, y, x + chance.randrange(20, 48) * side // 32, y + side), fill=255)
    shape = shape.resize((side, side), Image.Resampling.BOX)
    image = Image.new("RGB", (side, side), hidden)
    image.paste((white,) * 3, mask=shape.point(lambda v: 255 * (v > 0)))
    image.putalpha(shape)
    return image


def alpha_of(image):
    return np.repeat(np.asarray(image.getchannel("A"))[..., None], 3, axis=2)


def with_key(image):
    """An image of which one colour is transparent, black."""
    return Image.composite(
        Image.new(image, (64, 64), "white"),
        Image.new(image, (64, 64)),
        glyph().getchannel("A").point(lambda v: 255 * (v > 127)),
    )


def palette(image):
    out = image.getchannel("A").point(lambda v: int(v > 127)).convert("P")
    out.putpalette([9, 9, 9, 255, 255, 255])
    return out


GLYPH = glyph()
FILES = {
    "png": encode(GLYPH, "PNG"),
    "png, gray and alpha": encode(GLYPH.convert("LA"), "PNG"),
    "png, palette": encode(palette(GLYPH), "PNG", transparency=0),
    "png, colour key": encode(with_key("RGB"), "PNG", transparency=(0, 0, 0)),
    "png, gray key": encode(with_key("L"), "PNG", transparency=0),
    "png, bits": encode(with_key("L").convert("1"), "PNG", transparency=0),
    "png, 16 bits": encode(
        Image.fromarray(np.asarray(with_key("L")).astype(np.uint16) * 257), "PNG", transparency=0
    ),
    "gif": encode(palette(GLYPH), "GIF", transparency=0),
    "webp": encode(GLYPH, "WEBP", lossless=True),
    "webp lossy, black behind": encode(glyph(hidden=(0, 0, 0)), "WEBP", quality=40, exact=True),
    "avif": encode(GLYPH, "AVIF", quality=90),
    "avif, red behind": encode(glyph(hidden=(200, 30, 30)), "AVIF", quality=75),
    "tiff": encode(GLYPH, "TIFF"),
    "tga": encode(GLYPH, "TGA"),
    "ico": encode(GLYPH, "ICO", sizes=[(64, 64)]),
    "jpeg2000": encode(GLYPH, "JPEG2000"),
}


@pytest.mark.parametrize("kind", FILES)
def test_white_on_transparent_is_seen_and_alike_in_every_format(kind):
    hard = any(word in kind for word in ("palette", "key", "bits", "gif"))
    shape = alpha_of(GLYPH)
    expected = np.where(shape > 127, 255, 0) if hard else shape
    assert expected.std() > 50
    assert difference(decode(FILES[kind]).pixels, expected) < (8 if "avif" in kind else 2)


@pytest.mark.parametrize("white", [255, 252, 250, 245])
@pytest.mark.parametrize("hidden", [(255, 255, 255), (0, 0, 0), (10, 200, 90)])
def test_near_white_with_any_colour_behind_it_is_seen(white, hidden):
    for seed in range(20):
        image = glyph(seed, white=white, hidden=hidden)
        got = decode(encode(image, "PNG")).pixels
        assert difference(got, alpha_of(image)) < 12
        assert got.std() > 50


def test_the_ground_does_not_hang_on_the_size():
    image = glyph(side=512, hidden=(0, 0, 0))
    whole = prepare(encode(image, "PNG"), sizes=[(32, 32)]).arrays[0]
    for side in (16, 24, 48, 100, 300):
        small = encode(image.resize((side, side), Image.Resampling.LANCZOS), "PNG")
        assert difference(prepare(small, sizes=[(32, 32)]).arrays[0], whole) < 25


@pytest.mark.parametrize("hidden", [(255, 255, 255), (0, 0, 0)])
def test_text_is_seen(hidden):
    image = Image.new("RGBA", (200, 60), (*hidden, 0))
    font = ImageFont.load_default(size=30)
    ImageDraw.Draw(image).text((10, 10), "Hello World", fill="white", font=font)
    assert difference(decode(encode(image, "PNG")).pixels, alpha_of(image)) < 1


def over_white(image):
    white = Image.new("RGBA", image.size, "white")
    white.alpha_composite(image.convert("RGBA"))
    return white.convert("RGB")


def with_pixels(image, colour, share):
    image = image.copy()
    for i in range(int(share * image.width * image.height)):
        image.putpixel((i * 37 % image.width, i * 7 % image.height), colour)
    return image


ON_WHITE = {
    "black": glyph(white=0),
    "gray": glyph(white=128),
    "light gray": glyph(white=225),
    "a photograph": Image.fromarray(np.dstack([scene(), np.full((48, 64), 200, np.uint8)])),
    "white with a drop shadow": Image.alpha_composite(
        glyph(white=0).transform((64, 64), Image.Transform.AFFINE, (1, 0, -3, 0, 1, -3)), glyph()
    ),
    "white with much gray in it": with_pixels(GLYPH, (120, 120, 120, 255), 0.06),
    "nothing at all": Image.new("RGBA", (64, 64), (255, 255, 255, 0)),
    "nothing, black behind it": Image.new("RGBA", (64, 64), (0, 0, 0, 0)),
    "nothing but white": Image.new("RGBA", (64, 64), "white"),
    "white of one thinness": Image.new("RGBA", (64, 64), (255, 255, 255, 90)),
    "white of nearly one thinness": with_pixels(
        Image.new("RGBA", (64, 64), "white"), (255, 255, 255, 247), 0.2
    ),
}


@pytest.mark.parametrize("name", ON_WHITE)
def test_what_is_seen_on_white_or_nowhere_stays_on_white(name):
    image = ON_WHITE[name]
    expected = over_white(image)
    assert difference(decode(encode(image, "PNG")).pixels, expected) < 1


def test_some_gray_noise_does_not_save_white_from_vanishing():
    noisy = with_pixels(GLYPH, (215, 215, 215, 255), 0.02)
    assert difference(decode(encode(noisy, "PNG")).pixels, alpha_of(GLYPH)) < 8


def test_a_large_picture_is_judged_as_a_whole():
    """Of 1,500 by 1,200 pixels, decoded in blocks, white is in one and black in another."""
    image = Image.new("RGBA", (1500, 1200), (255, 255, 255, 0))
    image.paste("white", (100, 100, 400, 400))
    white = decode(encode(image, "PNG", compress_level=1)).pixels
    assert (white[0, 0].max(), white[200, 200].min()) == (0, 255)
    image.paste("black", (1200, 1100, 1300, 1190))
    both = decode(encode(image, "PNG", compress_level=1)).pixels
    assert (both[0, 0].min(), both[1150, 1250].max()) == (255, 0)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 255), st.integers(0, 255), st.integers(0, 255))
def test_any_two_layers_give_one_of_two_grounds(value, thin, thick):
    image = Image.new("RGBA", (8, 8), (value, value, value, thin))
    image.paste((value, value, value, thick), (2, 2, 6, 6))
    got = decode(encode(image, "PNG")).pixels
    on_black = Image.alpha_composite(Image.new("RGBA", (8, 8), "black"), image).convert("RGB")
    assert min(difference(got, over_white(image)), difference(got, on_black)) <= 1
