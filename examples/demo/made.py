"""Scenes of made things, materials, and one sky; each is a function like those of `nature`."""

from __future__ import annotations

import math

import numpy as np
from PIL import Image, ImageDraw

from examples.demo.paint import (
    Random,
    axes,
    gradient,
    hexes,
    ink,
    mix,
    noise,
    pick,
    ridge,
    smooth,
    stroke,
    to_image,
)


def city(rng: Random, w: int, h: int) -> Image.Image:
    """A skyline at night with lit windows, above water."""
    sky = pick(
        rng,
        (
            "0c1440 33408a c07a9a",
            "081230 1c3f7a 6fb0c8",
            "1a0c3c 5a2f80 f08a78",
            "0a1230 2a3560 e0a878",
        ),
    )
    shore = int(h * rng.uniform(0.74, 0.88))
    _, y = axes(w, h)
    t = np.broadcast_to(y / y[-1, 0] * h / shore, (h, w))
    picture = gradient(np.clip(t[:, :1] * 1.15, 0, 1), sky)
    stars = rng.random((h, w), np.float32) > 0.9985
    picture = mix(picture, hexes("ffffff")[0], stars * (1 - t) * 0.9)
    warm = hexes("ffd98a ffe9bd ffb866 cfe6ff")

    def skyline(draw: ImageDraw.ImageDraw) -> None:
        if rng.random() < 0.6:
            a, b, r = (
                rng.uniform(0.1, 0.9) * 2 * w,
                rng.uniform(0.08, 0.25) * 2 * h,
                rng.uniform(12, 26),
            )
            draw.ellipse((a - r, b - r, a + r, b + r), (245, 240, 220))
        for layer, gain in ((0, 0.85), (1, 0.5), (2, 0.28)):
            at = -10.0
            while at < w:
                wide = rng.uniform(22, 58)
                tall = shore * rng.uniform(0.15, 0.62) * (1.1 - 0.28 * layer)
                wall = ink(sky[1], gain * rng.uniform(0.65, 0.9))
                left, roof = int(2 * at), int(2 * (shore - tall))
                draw.rectangle((left, roof, int(left + 2 * wide), 2 * shore), wall)
                if rng.random() < 0.3:
                    draw.line((left + wide, roof - rng.uniform(20, 60), left + wide, roof), wall, 3)
                lit, step = rng.uniform(0.15, 0.6) * (0.35 + 0.35 * layer), int(rng.integers(9, 14))
                color = warm[rng.integers(len(warm))]
                for a in range(left + 6, int(left + 2 * wide) - 8, step):
                    for b in range(roof + 8, 2 * shore - 8, step + 4):
                        if rng.random() < lit:
                            draw.rectangle(
                                (a, b, a + step // 2, b + step // 2 + 2),
                                ink(color, rng.uniform(0.55, 1)),
                            )
                at += wide + rng.uniform(-6, 12)

    picture = stroke(picture, skyline)
    mirrored = picture[shore - 1 :: -1][: h - shore]
    shift = ((noise(rng, w, h - shore, 8, 40, 2) - 0.5) * 16).astype(np.intp)
    columns = np.clip(np.arange(w)[None, :] + shift, 0, w - 1)
    picture[shore : shore + len(mirrored)] = (
        np.take_along_axis(mirrored, columns[: len(mirrored), :, None], 1) * 0.6
    )
    return to_image(picture)


def balloons(rng: Random, w: int, h: int) -> Image.Image:
    """Hot-air balloons over hills."""
    sky = pick(
        rng,
        (
            "4f9ae0 a9d4f5 f5e6cf",
            "6aa0d8 d5e0f0 fbd9b8",
            "3f86c8 8fc4ea e8f3f5",
            "7a8fd0 e0b8d0 fbdcb0",
        ),
    )
    hill = pick(rng, ("7f9a7a 4f6f4a", "9a8f6a 6a5f3f", "6f8fa0 3f5f5a"))
    paints = hexes("e23b2e f7c52b 2a7ac0 f5f0e0 3aa05a f2803a 8a4fa0 e0568e 20406a 50c0c0")
    _, y = axes(w, h)
    t = np.broadcast_to(y / y[-1, 0], (h, w))
    picture = gradient(t[:, :1], sky)
    picture = mix(
        picture, hexes("ffffff")[0], smooth(noise(rng, w, h, 2.5, 5, 5), 0.5, 0.85) * 0.85
    )
    for layer in (0, 1):
        crest = 0.86 + 0.09 * layer - 0.14 * ridge(rng, w, 2 + layer, 3)
        picture = mix(
            picture,
            hill[layer] * (1 if layer else 0.8) + sky[1] * (0 if layer else 0.25),
            smooth(t - crest[None, :], 0, 0.006),
        )

    def fly(draw: ImageDraw.ImageDraw) -> None:
        for r in np.sort(rng.uniform(0.05, 0.19, int(rng.integers(3, 8))) ** 1.0).tolist():
            r *= 2 * min(w, h)
            a, b = rng.uniform(0.08, 0.92) * 2 * w, rng.uniform(0.14, 0.68) * 2 * h
            colors = paints[rng.permutation(len(paints))[: int(rng.integers(2, 4))]]
            gores = int(rng.integers(4, 8))
            draw.line((a - 0.2 * r, b + 1.2 * r, a - 0.1 * r, b + 1.62 * r), (70, 55, 45), 2)
            draw.line((a + 0.2 * r, b + 1.2 * r, a + 0.1 * r, b + 1.62 * r), (70, 55, 45), 2)
            for gore in range(
                gores
            ):  # from the widest band to the narrowest: gores seen from the front
                wide = r * math.cos(gore / gores * math.pi / 2)
                color = ink(colors[gore % len(colors)], 0.8 + 0.25 * gore / gores)
                draw.ellipse((a - wide, b - r, a + wide, b + r), color)
                draw.polygon(
                    [
                        (a - wide * 0.96, b + 0.28 * r),
                        (a + wide * 0.96, b + 0.28 * r),
                        (a + wide * 0.26, b + 1.28 * r),
                        (a - wide * 0.26, b + 1.28 * r),
                    ],
                    color,
                )
            draw.rectangle((a - 0.15 * r, b + 1.6 * r, a + 0.15 * r, b + 1.82 * r), (110, 72, 40))

    return to_image(stroke(picture, fly))


def tiles(rng: Random, w: int, h: int) -> Image.Image:
    """A tiled wall or floor: one motif, a few glazes."""
    glaze = pick(
        rng,
        (
            "f2ead8 1f4f8a 5fa0c8 e8b84a",
            "f5f0e6 c2452f e8a04a 2a4a4a",
            "e8efe6 2a7a6a 8ac0a8 f2c84a",
            "f4e9e4 7a3a5a d08aa0 3a3a5a",
            "efe6d0 3a3a3a 9a8f7a c8502f",
        ),
    )
    x, y = axes(w, h)
    angle = rng.choice((0.0, rng.uniform(-0.3, 0.3), math.pi / 4))
    count = rng.uniform(4, 8.5)
    u = (x * math.cos(angle) + y * math.sin(angle)) * count + rng.uniform(0, 1)
    v = (y * math.cos(angle) - x * math.sin(angle)) * count + rng.uniform(0, 1) + 20
    column, row = np.floor(u).astype(np.intp), np.floor(v).astype(np.intp)
    a, b = np.abs(u - column - 0.5), np.abs(v - row - 0.5)
    odd = (column + row) % 2 == 1
    soft = 0.02
    motif = int(rng.integers(5))
    if motif == 0:  # a checkered floor
        shape, inner = odd.astype(np.float32), smooth(0.16 - np.hypot(a, b), -soft, soft)
    elif motif == 1:  # diamonds
        shape, inner = smooth(0.46 - (a + b), -soft, soft), smooth(0.2 - (a + b), -soft, soft)
    elif motif == 2:  # rounds on a checkered ground
        shape, inner = (
            smooth(0.4 - np.hypot(a, b), -soft, soft),
            smooth(0.24 - np.hypot(a, b), -soft, soft),
        )
        shape = np.where(odd, shape, 1 - shape)
    elif motif == 3:  # four quarter circles
        corner = np.hypot(0.5 - a, 0.5 - b)
        shape, inner = smooth(0.42 - corner, -soft, soft), smooth(0.25 - corner, -soft, soft)
    else:  # eight-pointed stars
        star = np.minimum(np.maximum(a, b), (a + b) * 0.7071)
        shape, inner = smooth(0.3 - star, -soft, soft), smooth(0.13 - star, -soft, soft)
    glazed = glaze[rng.permutation(4)]
    picture = mix(np.broadcast_to(glazed[0], (h, w, 3)), glazed[1], shape)
    picture = mix(picture, np.where(odd[..., None], glazed[2], glazed[3]), inner)
    each = rng.normal(1, 0.05, (64, 64)).astype(np.float32)[row % 64, column % 64]
    picture = picture * each[..., None] * (0.92 + 0.14 * noise(rng, w, h, 50, 50, 2)[..., None])
    picture = mix(
        picture, hexes("8f8a80")[0] * rng.uniform(0.7, 1.2), smooth(np.maximum(a, b), 0.472, 0.485)
    )
    light = np.hypot(x - rng.uniform(0, 1.3), y - rng.uniform(0, 1))
    return to_image(picture * np.clip(1.14 - 0.26 * light, 0.5, 1.2)[..., None])


def wood(rng: Random, w: int, h: int) -> Image.Image:
    """Planks with grain and knots."""
    dark, light = pick(
        rng, ("7a4a22 c8945a", "4a2a18 8a5a38", "a06a3a e6c08a", "6a2f1a b0623a", "7a6a58 b8a890")
    )
    x, y = axes(w, h)
    along, across = (x, y) if rng.random() < 0.5 else (y, x)
    planks = int(rng.integers(2, 6)) / float(across.max())
    plank = np.floor(across * planks).astype(np.intp)
    plank = np.broadcast_to(plank, (h, w))
    offset = rng.uniform(0, 30, 16).astype(np.float32)[plank]
    tone = rng.normal(1, 0.09, 16).astype(np.float32)[plank]
    stretched = (2.0, 16.0) if along is x else (16.0, 2.0)
    warp = noise(rng, w, h, *stretched, 3)
    rings = across * 9 + offset + 2.6 * warp + 0.35 * along * np.sin(offset)
    for _ in range(int(rng.integers(0, 4))):
        c, d = rng.uniform(0, 1.3), rng.uniform(0, 1)
        far = np.hypot((along - c) * 0.45, across - d)
        rings = rings + 2.4 * np.exp(-((far / 0.055) ** 2)) + 0.4 * np.exp(-((far / 0.16) ** 2))
    fibre = noise(rng, w, h, *((6.0, 150.0) if along is x else (150.0, 6.0)), 2)
    figure = (rings * 1.6) % 1.0
    figure = smooth(figure.astype(np.float32), 0, 0.75) * smooth(
        1 - figure.astype(np.float32), 0, 0.12
    )
    picture = mix(np.broadcast_to(light, (h, w, 3)), dark, 0.62 * figure + 0.55 * (fibre - 0.4))
    seam = np.abs(across * planks - np.round(across * planks))
    gap = smooth((0.022 - seam) * np.ones((h, w), np.float32), 0, 0.012)
    return to_image(mix(picture * tone[..., None], dark * 0.25, gap))


def bricks(rng: Random, w: int, h: int) -> Image.Image:
    """A brick wall, plain, painted or grown over."""
    clay = pick(
        rng,
        (
            "a8482f 8a3322 c0623f",
            "b5764a 96582f cf9a68",
            "d8d2c6 c2bbae ebe6dc",
            "6a4a44 54383a 83605a",
            "9a5a4a 7a3a34 b87a5a",
        ),
    )
    mortar = pick(rng, ("cfc6b8", "9a948a", "e6e0d4", "6f6a64"))[0]
    x, y = axes(w, h)
    rows = rng.uniform(7, 15)
    ragged = (noise(rng, w, h, 40, 40, 2) - 0.5) * 0.09
    v = y * rows + ragged
    row = np.floor(v).astype(np.intp)
    u = x * rows / rng.uniform(2.2, 3.0) + 0.5 * (row % 2) + ragged * 0.4 + rng.uniform(0, 1)
    column = np.floor(u).astype(np.intp)
    kind = rng.integers(0, 3, (64, 64))[row % 64, column % 64]
    tone = rng.normal(1, 0.09, (64, 64)).astype(np.float32)[row % 64, column % 64]
    rough = noise(rng, w, h, 70, 70, 3)
    edge = np.minimum(0.5 - np.abs(v - row - 0.5), (0.5 - np.abs(u - column - 0.5)) * 2.6)
    body = clay[kind] * tone[..., None] * (0.72 + 0.5 * rough[..., None])
    body = body * (
        1 + 0.5 * (np.gradient(smooth(edge, 0.05, 0.17), axis=0))[..., None]
    )  # light from above
    picture = mix(mortar * (0.75 + 0.4 * rough[..., None]), body, smooth(edge, 0.06, 0.1))
    if rng.random() < 0.35:
        leaf = pick(rng, ("3f6b2a 7fa650", "5a7a2f a8b05a", "7a3f20 c86a30"))
        cover = noise(rng, w, h, 3, 3, 5) + 0.5 * (x / float(x.max()) - 0.6) * rng.choice((-1, 1))
        spots = [
            (rng.uniform(0, 1), rng.uniform(0, 1), rng.uniform(7, 15), rng.random())
            for _ in range(900)
        ]

        def ivy(draw: ImageDraw.ImageDraw) -> None:
            for a, b, r, shade in spots:
                if cover[int(b * (h - 1)), int(a * (w - 1))] > 0.55:
                    c, d = a * 2 * w, b * 2 * h
                    draw.polygon(
                        [(c - r, d - 0.3 * r), (c, d - r), (c + r, d - 0.3 * r), (c, d + 1.1 * r)],
                        ink(leaf[0] + (leaf[1] - leaf[0]) * shade),
                    )

        picture = stroke(picture, ivy)
    light = np.hypot(x - rng.uniform(0, 1.3), y - rng.uniform(0, 0.6))
    return to_image(picture * np.clip(1.12 - 0.25 * light, 0.5, 1.2)[..., None])


def galaxy(rng: Random, w: int, h: int) -> Image.Image:
    """Stars, clouds of gas, sometimes a spiral."""
    night, gas, glow, core = pick(
        rng,
        (
            "05060f 3a2a7a c04a8a ffe6c8",
            "03070f 104a6a 3aa0a8 fff2d8",
            "0a0508 6a2030 d0703a ffeac0",
            "04050c 203a8a 8a6ae0 f4ecff",
        ),
    )
    x, y = axes(w, h)
    clouds, veins = noise(rng, w, h, 3, 3, 6), noise(rng, w, h, 5, 5, 6)
    picture = mix(np.broadcast_to(night, (h, w, 3)), gas, smooth(clouds, 0.25, 0.85) * 0.85)
    picture = mix(picture, glow, smooth(clouds * veins, 0.26, 0.62) * 0.75)
    if rng.random() < 0.8:
        a, b = rng.uniform(0.35, 0.65) * float(x.max()), rng.uniform(0.35, 0.65) * float(y.max())
        turn, tilt, size = rng.uniform(0, 3.1), rng.uniform(0.35, 0.9), rng.uniform(0.16, 0.3)
        p = (x - a) * math.cos(turn) + (y - b) * math.sin(turn)
        q = ((y - b) * math.cos(turn) - (x - a) * math.sin(turn)) / tilt
        r = np.hypot(p, q) / size + 1e-4
        arms = 0.5 + 0.5 * np.cos(
            2 * np.arctan2(q, p) - 5.5 * np.log(r) * rng.choice((-1, 1)) + 2.4 * (veins - 0.5)
        )
        disc = np.exp(-1.1 * r) * (0.25 + 1.5 * arms**1.5) * (0.6 + 0.8 * veins)
        picture = mix(picture, glow * 0.5 + core * 0.5, disc * 1.1)
        picture = mix(picture, core, np.exp(-((r / 0.33) ** 2)) + 0.5 * np.exp(-2.6 * r))
    bright = rng.random((h, w), np.float32)
    picture = np.maximum(picture, (smooth(bright, 0.9955, 1.0) * 0.95)[..., None])
    stars = [
        (rng.uniform(0, 2 * w), rng.uniform(0, 2 * h), rng.uniform(1, 4.5))
        for _ in range(int(rng.integers(20, 70)))
    ]

    def shine(draw: ImageDraw.ImageDraw) -> None:
        for c, d, r in stars:
            tint = ink((1, rng.uniform(0.85, 1), rng.uniform(0.75, 1)))
            if r > 3.6:
                draw.line((c - 4 * r, d, c + 4 * r, d), ink(gas + 0.35), 1)
                draw.line((c, d - 4 * r, c, d + 4 * r), ink(gas + 0.35), 1)
            draw.ellipse((c - r, d - r, c + r, d + r), tint)

    return to_image(stroke(picture, shine))
