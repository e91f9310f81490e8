"""Every layout of TIFF is decoded to the pixels that were written, or rejected by name."""

import io
import itertools

import numpy as np
import pytest
from PIL import Image

from lookalike.images.limits import ImageLimits
from lookalike.images.pixels import upright
from lookalike.images.preparing import decode
from tests.image_files import VALID, difference, encode, rejection, scene
from tests.tiff_files import (
    BLACK_IS_ZERO,
    CMYK,
    DEFLATE,
    FLOAT,
    JPEG,
    LAB,
    LZMA,
    LZW,
    MASK,
    NONE,
    PACKBITS,
    PALETTE,
    RGB,
    SIGNED,
    UNSIGNED,
    WHITE_IS_ZERO,
    YCBCR,
    write_tiff,
)

HEIGHT, WIDTH = 19, 21
COLOURS = scene(HEIGHT, WIDTH).astype(int)
GRAY = np.asarray(Image.fromarray(COLOURS.astype(np.uint8)).convert("L")).astype(int)[..., None]
YCC = np.asarray(Image.fromarray(COLOURS.astype(np.uint8)).convert("YCbCr")).astype(int)
MAP = np.random.default_rng(1).integers(0, 256, (256, 3))

ALL = ("<1", "<2", ">1", ">2")
PLAIN = ("<1", ">1")
# (colour space, bits, type): the orders of bytes and of bits with which it is read. All else is
# rejected, whatever the compression, the planes, and whether there are strips or tiles.
READ = {
    **{
        (space, bits, UNSIGNED): ALL
        for space in (WHITE_IS_ZERO, BLACK_IS_ZERO, PALETTE)
        for bits in (1, 2, 4, 8)
    },
    (WHITE_IS_ZERO, 16, UNSIGNED): ("<1",),
    (WHITE_IS_ZERO, 32, FLOAT): PLAIN,
    (BLACK_IS_ZERO, 12, UNSIGNED): ("<1",),
    (BLACK_IS_ZERO, 16, UNSIGNED): ("<1", "<2", ">1"),
    (BLACK_IS_ZERO, 16, SIGNED): PLAIN,
    (BLACK_IS_ZERO, 32, UNSIGNED): ("<1",),
    (BLACK_IS_ZERO, 32, SIGNED): PLAIN,
    (BLACK_IS_ZERO, 32, FLOAT): PLAIN,
    (RGB, 8, UNSIGNED): ALL,
    (RGB, 16, UNSIGNED): PLAIN,
    (CMYK, 8, UNSIGNED): PLAIN,
    (CMYK, 16, UNSIGNED): PLAIN,
    (YCBCR, 8, UNSIGNED): PLAIN,
}
LAYOUTS = [
    *itertools.product(
        (WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, CMYK, YCBCR),
        (1, 2, 4, 8, 10, 12, 14, 16, 24, 32, 64),
        (UNSIGNED,),
    ),
    *itertools.product((WHITE_IS_ZERO, BLACK_IS_ZERO, RGB), (8, 16, 32), (SIGNED,)),
    *itertools.product((WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, CMYK), (16, 32, 64), (FLOAT,)),
    *itertools.product((MASK, 9, 10), (8, 16), (UNSIGNED,)),
    (LAB, 16, UNSIGNED),
]


def stretched(values):
    low, high = values.min(), values.max()
    return np.repeat(((values - low) * 255 / (high - low)).round().astype(int), 3, axis=2)


def source(space, bits, kind):
    """The values to write, and the picture that they are."""
    if kind == FLOAT:
        values = (COLOURS if space == RGB else GRAY) / 255
        values = np.repeat(values, 4, axis=2)[..., :4] if space == CMYK else values
        return 1 - values if space == WHITE_IS_ZERO else values, np.repeat(GRAY, 3, axis=2)
    if kind == SIGNED:
        values = (COLOURS if space == RGB else GRAY) * (1 << (bits - 8)) - (1 << (bits - 1))
        return values, stretched(values[..., :1])
    top = 2.0**bits - 1 if bits < 64 else 2.0**62
    if space in (WHITE_IS_ZERO, BLACK_IS_ZERO, MASK):
        values = np.round(GRAY * (top / 255)).astype(np.uint64)
        shown = np.repeat(np.round(values * (255 / top)).astype(int), 3, axis=2)
        if bits == 32:
            shown = stretched(values.astype(np.int64))
        return np.uint64(top) - values if space == WHITE_IS_ZERO else values, shown
    if space == PALETTE:
        values = GRAY * (2 ** min(bits, 8) - 1) // 255
        return values, MAP[values[..., 0]]
    if space == CMYK:
        inks = np.concatenate([255 - COLOURS, np.full((HEIGHT, WIDTH, 1), 30)], axis=2)
        return np.round(inks * (top / 255)).astype(np.uint64), np.round(COLOURS * 225 / 255)
    values = np.round((YCC if space == YCBCR else COLOURS) * (top / 255)).astype(np.uint64)
    shown = COLOURS if space == YCBCR else np.round(values * (255 / top)).astype(int)
    return values, shown


def ways(space, bits, kind):
    """What may be chosen besides: compression and predictor, planes, orders, strips or tiles."""
    coded = [(NONE, 1), (LZW, 1), (DEFLATE, 1), (PACKBITS, 1), (LZMA, 1)]
    if bits in (8, 16, 32) and kind == UNSIGNED:
        coded += [(LZW, 2), (DEFLATE, 2)]
    if bits in (16, 32, 64) and kind == FLOAT:
        coded += [(LZW, 3), (DEFLATE, 3)]
    if bits == 8 and kind == UNSIGNED and space in (BLACK_IS_ZERO, RGB, CMYK, YCBCR):
        coded.append((JPEG, 1))
    for (compression, predictor), planar, order, fill in itertools.product(
        coded, (1, 2), "<>", (1, 2)
    ):
        if fill == 2 and (predictor > 1 or compression == JPEG):
            continue
        for tile in (None, (16, 16)):
            yield (
                order,
                fill,
                {
                    "compression": compression,
                    "predictor": predictor,
                    "planar": planar,
                    "order": order,
                    "fill_order": fill,
                    "tile": tile,
                },
            )


@pytest.mark.parametrize(("space", "bits", "kind"), LAYOUTS)
def test_layouts(space, bits, kind):
    values, shown = source(space, bits, kind)
    colours = 257 * MAP[: 2 ** min(bits, 8)] if space == PALETTE else None
    for order, fill, way in ways(space, bits, kind):
        data = write_tiff(values, space, bits, sample_format=kind, colour_map=colours, **way)
        if f"{order}{fill}" not in READ.get((space, bits, kind), ()):
            error = rejection(data, "x.tif")
            assert error.reason == "unsupported_format", (way, error)
            assert f"{bits}-bit" in error.detail
            assert ("in planes" in error.detail) == (way["planar"] == 2)
            continue
        off = np.abs(decode(data).pixels - shown)
        if way["compression"] == JPEG:
            assert off.mean() < 8, way
        else:
            assert off.max() <= (3 if space == YCBCR else 1), way


def test_the_words_of_a_rejection():
    values = np.zeros((4, 4, 4), np.float32)
    data = write_tiff(values, RGB, 32, sample_format=FLOAT, planar=2, compression=LZW, extra=(2,))
    assert rejection(data).detail == (
        "TIFF of this layout is not read: RGB, 4 x 32-bit float, 1 of them beside the colours, "
        "in planes, LZW"
    )


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("planar", [1, 2])
@pytest.mark.parametrize("bits", [8, 16])
def test_alpha_and_other_samples(order, planar, bits):
    scale = 257 if bits == 16 else 1
    half = COLOURS // 2
    for extra in (0, 1, 2):
        values = np.concatenate([half, np.full((HEIGHT, WIDTH, 1), 128)], axis=2) * scale
        shown = [half, half + 127, half * 128 / 255 + 127][extra]
        for compression in (NONE, LZW):
            data = write_tiff(
                values,
                RGB,
                bits,
                order=order,
                planar=planar,
                extra=(extra,),
                compression=compression,
            )
            assert np.abs(decode(data).pixels - shown).max() <= 2, (extra, compression)
    if bits == 8:
        more = np.concatenate([COLOURS, np.full((HEIGHT, WIDTH, 2), 255)], axis=2)
        for extra in ((0, 0), (1, 0), (2, 0)):
            data = write_tiff(more, RGB, 8, order=order, planar=planar, extra=extra)
            if planar == 2 and any(extra):
                assert "5 x 8-bit" in rejection(data).detail
            else:
                assert np.array_equal(decode(data).pixels, COLOURS)
    gray = np.concatenate([GRAY // 2, np.full((HEIGHT, WIDTH, 1), 128)], axis=2) * scale
    data = write_tiff(gray, BLACK_IS_ZERO, bits, order=order, planar=planar, extra=(2,))
    if bits == 8 and planar == 1:
        assert np.abs(decode(data).pixels - (GRAY // 2 * 128 / 255 + 127)).max() <= 2
    else:
        assert rejection(data).reason == "unsupported_format"


SUBSAMPLINGS = [(1, 1), (2, 1), (2, 2), (4, 1), (4, 2), (4, 4), (1, 2)]


@pytest.mark.parametrize("tile", [None, (16, 16)])
@pytest.mark.parametrize("subsampling", [*SUBSAMPLINGS, (2, 4), (3, 1)])
def test_ycbcr_with_less_colour_than_light(subsampling, tile):
    across, down = subsampling
    for order, compression in itertools.product("<>", (NONE, LZW, DEFLATE)):
        data = write_tiff(
            YCC, YCBCR, order=order, compression=compression, tile=tile, subsampling=subsampling
        )
        if subsampling not in SUBSAMPLINGS or (tile and subsampling == (4, 4)):
            error = rejection(data)
            assert error.reason == "unsupported_format"
            assert f"YCbCr {across} x {down}" in error.detail
            continue
        edge = ((0, -HEIGHT % 16 or 16), (0, -WIDTH % 16), (0, 0))
        padded = np.pad(
            YCC, edge if tile else ((0, -HEIGHT % down), (0, -WIDTH % across), (0, 0)), mode="edge"
        )
        rows = padded.shape[0]
        cells = padded[: rows // down * down].reshape(rows // down, down, -1, across, 3)
        colour = cells.mean(axis=(1, 3)).round().repeat(down, 0).repeat(across, 1)
        whole = np.concatenate([YCC[..., :1], colour[:HEIGHT, :WIDTH, 1:]], axis=2)
        shown = Image.fromarray(whole.astype(np.uint8), "YCbCr").convert("RGB")
        assert np.abs(decode(data).pixels - np.asarray(shown).astype(int)).max() <= 3


def test_planes_of_ycbcr_with_less_colour_are_rejected():
    data = write_tiff(YCC, YCBCR, planar=2).replace(
        b"\x12\2\3\0\2\0\0\0\1\0\1\0", b"\x12\2\3\0\2\0\0\0\2\0\2\0"
    )
    assert "YCbCr 2 x 2, 3 x 8-bit unsigned, in planes" in rejection(data).detail


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("compression", [NONE, LZW, DEFLATE])
def test_lab(order, compression):
    """A line of grays, and one of a colour: L* 60, a* 40, b* -40 is (186, 118, 216)."""
    values = np.zeros((2, 16, 3), int)
    values[0, :, 0] = range(0, 256, 17)
    values[1] = (153, 40, 256 - 40)
    data = write_tiff(values, LAB, order=order, compression=compression)
    got = decode(data).pixels.astype(int)
    lightness = values[0, :, 0] / 2.55
    light = np.where(lightness > 8, ((lightness + 16) / 116) ** 3, lightness / 903.3)
    shown = 255 * np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    assert np.abs(got[0] - shown[:, None]).max() <= 2
    assert np.abs(got[1] - (186, 118, 216)).max() <= 2
    planes = write_tiff(values, LAB, order=order, compression=compression, planar=2)
    assert "CIELab, 3 x 8-bit unsigned, in planes" in rejection(planes).detail


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_maps_of_colours_with_8_bits(order, bits):
    values = GRAY * (2**bits - 1) // 255
    for compression, big in itertools.product((NONE, LZW), (False, True)):
        data = write_tiff(
            values,
            PALETTE,
            bits,
            order=order,
            compression=compression,
            big=big,
            colour_map=MAP[: 2**bits],
        )
        assert np.array_equal(decode(data).pixels, MAP[values[..., 0]])


@pytest.mark.parametrize("order", "<>")
def test_bigtiff(order):
    for planar, bits, compression, tile in itertools.product(
        (1, 2), (8, 16), (NONE, LZW, DEFLATE), (None, (16, 16))
    ):
        values = COLOURS * (257 if bits == 16 else 1)
        data = write_tiff(
            values,
            RGB,
            bits,
            order=order,
            big=True,
            planar=planar,
            compression=compression,
            tile=tile,
        )
        got = decode(data)
        assert got.format == "TIFF"
        assert np.array_equal(got.pixels, COLOURS)
    assert rejection(data[: len(data) // 2]).reason in ("truncated", "corrupt")
    whole = write_tiff(COLOURS, RGB, order=order, big=True)
    moved = whole[:8] + (1 << 60).to_bytes(8, "little" if order == "<" else "big") + whole[16:]
    assert rejection(moved).reason in ("truncated", "corrupt")


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_in_every_layout(order, orientation):
    for planar, bits, big in itertools.product((1, 2), (8, 16), (False, True)):
        values = COLOURS * (257 if bits == 16 else 1)
        data = write_tiff(
            values, RGB, bits, planar=planar, order=order, big=big, tags=[(274, 3, [orientation])]
        )
        assert np.array_equal(decode(data).pixels, upright(COLOURS, orientation))


@pytest.mark.parametrize("rows", [1, 3, 8, HEIGHT, 100])
@pytest.mark.parametrize("planar", [1, 2])
def test_strips_of_any_height(rows, planar):
    assert np.array_equal(
        decode(write_tiff(COLOURS, RGB, planar=planar, rows=rows)).pixels, COLOURS
    )


@pytest.mark.parametrize("compression", ["group3", "group4", "tiff_ccitt"])
@pytest.mark.parametrize("space", [WHITE_IS_ZERO, BLACK_IS_ZERO])
def test_facsimile(compression, space):
    image = Image.fromarray(COLOURS.astype(np.uint8)).convert("1")
    data = encode(image, "TIFF", compression=compression, tiffinfo={262: space})
    assert np.array_equal(decode(data).pixels, np.asarray(image.convert("RGB")))


def test_planes_that_end_early_are_truncated_and_never_half_read():
    data = write_tiff(COLOURS, RGB, planar=2)
    at = int.from_bytes(data[4:8], "little")
    moved = data[:8] + data[at:]  # the directory, and none of the pixels
    for limits in (ImageLimits(), ImageLimits(truncated="accept")):
        assert rejection(
            moved[:4] + (8).to_bytes(4, "little") + moved[8:], limits=limits
        ).reason in ("truncated", "corrupt")


def test_planes_of_a_size_that_lies_cost_nothing():
    tile = write_tiff(COLOURS, RGB, planar=2, tile=(16, 16))
    at = tile.index((322).to_bytes(2, "little"), int.from_bytes(tile[4:8], "little"))
    for width in (1 << 15, 65520):
        lie = tile[: at + 8] + width.to_bytes(2, "little") + tile[at + 10 :]
        lie = lie[: at + 20] + (65520).to_bytes(2, "little") + lie[at + 22 :]
        assert rejection(lie).reason == "too_many_pixels"


def test_a_picture_in_planes_reduces_like_one_in_one():
    colours = scene(300, 400).astype(int)
    whole, planes = (
        decode(write_tiff(colours, RGB, planar=planar, rows=64), min_side=40).pixels
        for planar in (1, 2)
    )
    assert whole.shape == (100, 134, 3)
    assert np.array_equal(whole, planes)


def test_tiff_by_pillow_is_still_what_it_was():
    for kind in ("tiff", "tiff lzw", "tiff deflate"):
        assert np.array_equal(decode(VALID[kind]).pixels, scene())
    assert difference(decode(VALID["tiff jpeg"]).pixels, scene()) < 3
    image = Image.open(io.BytesIO(VALID["tiff"]))
    assert np.array_equal(np.asarray(image), scene())
