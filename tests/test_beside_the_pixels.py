"""What is not needed of a file does not decide whether its picture is read."""

import random
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms

from lookalike.images.preparing import decode
from lookalike.images.rewriting import large_profile_of_png
from tests.colour_profiles import display_p3
from tests.image_files import VALID, chunk, encode, rejection, scene

WHOLE = VALID["png"]
CHANCE = random.Random(1)
LONG = CHANCE.randbytes(1_500_000)


def with_chunks(*chunks, data=WHOLE):
    return data[:33] + b"".join(chunks) + data[33:]


def bad(kind, content):
    """A chunk whose checksum fails."""
    return chunk(kind, content)[:-1] + b"\0"


def exif(orientation):
    made = Image.Exif()
    made[274] = orientation
    return made.tobytes()


UNNEEDED = {
    "zTXt": chunk(b"zTXt", b"workflow\0\0" + zlib.compress(LONG)),
    "iTXt": chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(LONG)),
    "iTXt plain": chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + LONG),
    "tEXt": chunk(b"tEXt", b"workflow\0" + LONG),
    "70 zTXt": b"".join(
        chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(1 << 20))) for _ in range(70)
    ),
    "iCCP": chunk(b"iCCP", b"x\0\0" + zlib.compress(LONG)),
    "iCCP bomb": chunk(b"iCCP", b"x\0\0" + zlib.compress(bytes(1 << 25))),
    "iCCP of another method": chunk(b"iCCP", b"x\0\1y"),
    "iCCP not inflated": chunk(b"iCCP", b"x\0\0not zlib"),
    "iCCP without a name": chunk(b"iCCP", b"x" * 200),
    "exif as text": chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(LONG)),
    "bad sum of tEXt": bad(b"tEXt", b"a\0b"),
    "bad sum of gAMA": bad(b"gAMA", b"\0\0\xb1\x8f"),
    "bad sum of eXIf": bad(b"eXIf", exif(6)),
    "short pHYs": chunk(b"pHYs", b"\0"),
    "short gAMA": chunk(b"gAMA", b"\0"),
    "tIME": chunk(b"tIME", bytes(7)),
    "its own": chunk(b"prVt", LONG),
}


@pytest.mark.parametrize("kind", UNNEEDED)
def test_png_is_read_whatever_stands_beside(kind):
    got = decode(with_chunks(UNNEEDED[kind]))
    assert np.array_equal(got.pixels, scene())
    assert np.array_equal(decode(WHOLE[:-12] + UNNEEDED[kind] + WHOLE[-12:]).pixels, scene())


def test_what_is_needed_of_png_stays():
    for extra in UNNEEDED.values():
        if b"eXIf" not in extra and b"exif" not in extra:
            turned = decode(with_chunks(extra, chunk(b"eXIf", exif(6))))
            assert (turned.width, turned.height) == (48, 64)
    text = b"\nexif\n%8d\n%s\n" % (len(exif(6)), exif(6).hex().encode())
    for raw in (
        chunk(b"tEXt", b"Raw profile type exif\0" + text),
        chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(text)),
    ):
        assert decode(with_chunks(UNNEEDED["zTXt"], raw)).width == 48
        assert decode(WHOLE[:-12] + raw + WHOLE[-12:]).width == 48
    dark = decode(with_chunks(UNNEEDED["zTXt"], chunk(b"gAMA", struct.pack(">I", 100_000))))
    assert dark.pixels.mean() > scene().mean() + 20  # light is linear, and so lighter in sRGB


def padded(profile, size):
    made = bytearray(profile + bytes(size - len(profile)))
    made[:4] = struct.pack(">I", size)
    return bytes(made)


@pytest.mark.parametrize("size", [1 << 10, 1_500_000, 3_900_000, 5_000_000])
def test_profiles_count_up_to_4_mib(size):
    plain = decode(with_chunks(chunk(b"iCCP", b"x\0\0" + zlib.compress(display_p3())))).pixels
    assert not np.array_equal(plain, scene())
    profile = padded(display_p3(), max(size, len(display_p3())))
    got = decode(with_chunks(chunk(b"iCCP", b"x\0\0" + zlib.compress(profile)))).pixels
    assert np.array_equal(got, scene() if size > 4 << 20 else plain)


def test_a_damaged_large_profile_is_none():
    made = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    large = b"x\0\0" + zlib.compress(padded(made, 2_000_000))
    assert len(large_profile_of_png(with_chunks(chunk(b"iCCP", large)))) == 2_000_000
    assert large_profile_of_png(with_chunks(bad(b"iCCP", large))) is None
    assert large_profile_of_png(with_chunks(chunk(b"iCCP", large[:-9]))) is None


def test_what_is_cut_is_truncated_with_metadata_too():
    data = with_chunks(UNNEEDED["tIME"], UNNEEDED["zTXt"])
    for end in (40, len(data) // 2, len(data) - 400):
        assert rejection(data[:end]).reason == "truncated"


def test_palettes_and_frames_stay():
    picture = Image.fromarray(scene()).quantize(16)
    data = encode(picture, "PNG", transparency=3)
    assert np.array_equal(
        decode(with_chunks(UNNEEDED["tIME"], data=data)).pixels, decode(data).pixels
    )
    frames = encode(
        Image.fromarray(scene()), "PNG", save_all=True, append_images=[Image.new("RGB", (64, 48))]
    )
    assert np.array_equal(decode(with_chunks(UNNEEDED["tIME"], data=frames)).pixels, scene())


def gif_within(transparency=None):
    """A GIF of 20 x 20, whose first frame is 10 x 10 of green in the middle."""
    frame = Image.new("P", (10, 10), 0)
    frame.putpalette([0, 255, 0, 255, 0, 0] + [0] * 762)
    options = {} if transparency is None else {"transparency": transparency}
    data = bytearray(encode(frame, "GIF", **options))
    data[6:10] = struct.pack("<HH", 20, 20)
    at = data.index(b",", 13 + 3 * (2 << (data[10] & 7)))
    data[at + 1 : at + 5] = struct.pack("<HH", 5, 5)
    return bytes(data)


@pytest.mark.parametrize("transparency", [None, 1])
def test_outside_the_first_frame_of_a_gif_is_transparent(transparency):
    pixels = decode(gif_within(transparency)).pixels
    inside = np.zeros((20, 20), bool)
    inside[5:15, 5:15] = True
    assert (pixels[inside] == (0, 255, 0)).all()
    assert (pixels[~inside] == 255).all()


@pytest.mark.parametrize("box", [(64, 0, 128, 128), (0, 32, 128, 128), (16, 24, 80, 100)])
def test_outside_the_first_frame_of_a_webp_is_transparent(box):
    noise = np.random.default_rng(1).integers(60, 200, (128, 128, 1)).repeat(3, axis=2)
    picture = Image.fromarray(noise.astype(np.uint8)).convert("RGBA")
    alpha = Image.new("L", picture.size, 0)
    alpha.paste(255, box)
    picture.putalpha(alpha)
    later = Image.fromarray(noise[::-1].astype(np.uint8)).convert("RGBA")
    moving = encode(picture, "WEBP", save_all=True, append_images=[later], quality=95, duration=9)
    still = encode(picture, "WEBP", lossless=True)
    got, shown = decode(moving).pixels.astype(int), decode(still).pixels.astype(int)
    outside = np.asarray(alpha) == 0
    assert (shown[outside] == 255).all()
    assert (got[outside] == 255).all()
    assert np.abs(got - shown).mean() < 8
