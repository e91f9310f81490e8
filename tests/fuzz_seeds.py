"""Whole files to damage, of the layouts that few collections hold."""

import itertools
import zlib

import numpy as np

from tests import bitmap_files, tiff_files
from tests.heif_files import as_grid, clap, irot
from tests.image_files import VALID, chunk, encode, golden, lossless_jpeg, scene


def made_seeds():
    """Small pictures in every format, and in the layouts that are decoded in ways of their own."""
    colours = scene(19, 21).astype(int)
    gray = colours[..., :1]
    seeds = [*VALID.values()]
    for order, big, planar in itertools.product("<>", (False, True), (1, 2)):
        way = {"order": order, "big": big, "planar": planar}
        for compression, tile in ((1, None), (5, (16, 16)), (8, None), (32773, (16, 16))):
            coded = {**way, "compression": compression, "tile": tile}
            seeds += [
                tiff_files.write_tiff(colours, 2, **coded),
                tiff_files.write_tiff(257 * colours, 2, 16, **coded),
                tiff_files.write_tiff(gray // 64, 0, 2, fill_order=2, **coded),
                tiff_files.write_tiff(gray, 3, colour_map=np.arange(768).reshape(256, 3), **coded),
                tiff_files.write_tiff(gray / 255, 0, 32, sample_format=3, **coded),
                tiff_files.write_tiff(colours, 6, **coded),
            ]
        seeds.append(tiff_files.write_tiff(colours, 6, subsampling=(2, 2), order=order, big=big))
        seeds.append(tiff_files.write_tiff(colours, 6, compression=7, **way))
    palette = np.random.default_rng(1).integers(0, 256, (16, 3))
    for runs in ([21], [1], [3, 2, 8], [255]):
        for compression, bits in ((bitmap_files.RLE4, 4), (bitmap_files.RLE8, 8)):
            seeds.append(
                bitmap_files.write_bmp(
                    gray[..., 0] // 16, bits, palette, runs=runs, compression=compression
                )
            )
    for bits, header in itertools.product((1, 2, 4, 8), (12, 40, 64, 124)):
        values = gray[..., 0] >> (8 - bits)
        seeds.append(
            bitmap_files.write_bmp(values, bits, np.resize(palette, (2**bits, 3)), header=header)
        )
    for kind, depth in ((2, 16), (10, 16), (2, 32), (10, 32), (3, 16), (11, 8)):
        seeds.append(bitmap_files.write_tga(gray[..., 0], kind, depth))
    for kind in (1, 9):
        seeds.append(
            bitmap_files.write_tga(
                gray[..., 0] // 16, kind, 8, map_depth=32, origin=0x10, palette=palette[:, 0]
            )
        )
    seeds += [lossless_jpeg(gray), lossless_jpeg(colours)]
    seeds += [encode(scene(), "JPEG", progressive=True, subsampling=s) for s in (0, 1, 2)]
    whole = VALID["png"]
    for extra in (
        chunk(b"iCCP", b"x\0\0" + zlib.compress(bytes(3 << 20))),
        chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(b"\nexif\n 4\n00000000")),
        chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(bytes(2 << 20))),
    ):
        seeds.append(whole[:33] + extra + whole[33:])
    two = [golden("plain"), golden("exif_only")]
    seeds += [as_grid(two, 2, 3, 180, 90, *more) for more in ((), (irot(1), clap(100, 80)))]
    return seeds
