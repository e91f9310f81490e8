"""Scenes of land and sea; each is a function (random generator, width, height) -> picture."""

from __future__ import annotations

import math

import numpy as np
from PIL import Image, ImageDraw

from examples.demo.paint import (
    Array,
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
    stencil,
    stroke,
    to_image,
)


def seascape(rng: Random, w: int, h: int) -> Image.Image:
    """The sun going down over the sea, here and there a sail."""
    x, y = axes(w, h)
    sky = pick(
        rng,
        (
            "3b3a6e a8577e f08a5d ffd27d",
            "22335e 6a5b94 e58b88 ffdca8",
            "5a2a52 c2476a f9844a f9d976",
            "1f4068 4a7c9b f2b279 ffe9b0",
        ),
    )
    horizon, top, end = rng.uniform(0.45, 0.66), float(y[-1, 0]), float(x[0, -1])
    sea_y = horizon * top
    sun_x, sun_y = rng.uniform(0.2, 0.8) * end, sea_y - rng.uniform(0.0, 0.22)
    t = np.broadcast_to(y / sea_y, (h, w))
    reflected = np.where(t < 1, t, 2 - t)  # the sea mirrors the sky
    picture = gradient(reflected[:, :1], sky)
    clouds = smooth(noise(rng, w, h, 3, 12, 5), rng.uniform(0.45, 0.6), 0.9) * (t < 1)
    picture = mix(picture, sky[1] * 0.8 + 0.12, clouds * 0.75)
    distance = np.hypot(x - sun_x, y - sun_y)
    warm = np.array([1, 0.93, 0.72], np.float32)
    picture = mix(picture, warm, np.exp(-((distance / 0.22) ** 2)) * 0.6)
    picture = mix(picture, warm, smooth(-distance, -0.075, -0.066) * (y < sea_y))
    depth = np.clip((y - sea_y) / (top - sea_y), 0, 1)
    waves = noise(rng, w, h, 9, 70, 3)
    picture = mix(picture, sky[0] * 0.55, (t >= 1) * (0.35 + 0.45 * depth + 0.5 * (waves - 0.5)))
    path = np.exp(-(((x - sun_x) / (0.05 + 0.22 * depth)) ** 2)) * smooth(waves, 0.42, 0.62)
    picture = mix(picture, warm, path * (t >= 1) * 0.85)
    if rng.random() < 0.6:
        size, at = (
            rng.uniform(0.05, 0.12),
            (rng.uniform(0.1, 0.9) * end, sea_y + rng.uniform(0.01, 0.07)),
        )
        unit = 2 * min(w, h)
        hull = [(-0.6, -0.1), (0.65, -0.1), (0.4, 0.12), (-0.45, 0.12)]
        sails = [
            [(0, -0.16), (0, -1.5), (0.6, -0.16)],
            [(-0.08, -0.16), (-0.08, -1.2), (-0.5, -0.16)],
        ]

        def boat(draw: ImageDraw.ImageDraw) -> None:
            for shape, gain in ((hull, 0.3), (sails[0], 0.55), (sails[1], 0.42)):
                draw.polygon(
                    [((at[0] + size * a) * unit, (at[1] + size * b) * unit) for a, b in shape],
                    ink(sky[0], gain),
                )

        picture = stroke(picture, boat)
    return to_image(picture)


def forest(rng: Random, w: int, h: int) -> Image.Image:
    """Rows of conifers in the mist."""
    mist, far, near = pick(
        rng,
        (
            "dfe8dc 9db89f 15301f",
            "e4e6d2 b4bd8a 2a3312",
            "d3e2e4 86a9a6 0c2a2c",
            "f1e3c8 c9b27a 33290f",
            "cfdccb 7fa182 12331a",
        ),
    )
    _, y = axes(w, h)
    t = np.broadcast_to(y / y[-1, 0], (h, w))
    picture = gradient(t[:, :1], np.stack([mist * 0.93, mist, mist * 1.03]))
    layers = int(rng.integers(4, 7))
    base = rng.uniform(0.3, 0.5)
    for layer in range(layers):
        near_by = layer / (layers - 1)
        ground = (base + (1.05 - base) * near_by) * h
        hill = ridge(rng, w, 2, 2)
        height = h * (0.13 + 0.42 * near_by) * rng.uniform(0.8, 1.2)
        trees = [
            (rng.uniform(-0.05, 1.05) * w, height * rng.uniform(0.5, 1.1), rng.uniform(0.17, 0.25))
            for _ in range(int(26 - 15 * near_by))
        ]

        def row(
            draw: ImageDraw.ImageDraw,
            trees: list[tuple[float, float, float]] = trees,
            ground: float = ground,
            hill: Array = hill,
        ) -> None:
            edge = [(2.0 * i, 2 * (ground - 0.1 * h * float(hill[i]))) for i in range(0, w, 4)]
            draw.polygon([(0, 2 * h), *edge, (2 * w, edge[-1][1]), (2 * w, 2 * h)], 255)
            for at, tall, slim in trees:
                foot = ground - 0.1 * h * float(hill[min(max(int(at), 0), w - 1)]) + 4
                tiers = 7
                right = []
                for tier in range(1, tiers + 1):
                    down, wide = tall * tier / tiers, slim * tall * tier / tiers
                    right += [(wide, down), (wide * 0.5, down - 0.02 * tall)]
                outline = [(0.0, 0.0), *right, *[(-a, b) for a, b in reversed(right)]]
                draw.polygon([(2 * (at + a), 2 * (foot - tall + b)) for a, b in outline], 255)

        mask = stencil(w, h, row)
        color = far + (near - far) * near_by**0.8
        shade = mix(
            np.broadcast_to(color, (h, w, 3)),
            mist,
            smooth(t, (ground - height) / h, ground / h + 0.15) * 0.55 * (1 - near_by),
        )
        picture = mix(picture, shade, mask)
    return to_image(picture * (0.94 + 0.12 * noise(rng, w, h, 40, 40, 2)[..., None]))


def mountains(rng: Random, w: int, h: int) -> Image.Image:
    """Snowy ridges under a clear sky."""
    zenith, low, rock, wood = pick(
        rng,
        (
            "3f7cc0 cfe4f2 5a5f6e 25382f",
            "5c8fb8 f3dcc8 6b5f62 2c3a30",
            "2f5f9e a9cbe6 4b5262 1d2f33",
            "7f8fb8 f0c9c0 5d566b 272b3d",
        ),
    )
    _, y = axes(w, h)
    t = np.broadcast_to(y / y[-1, 0], (h, w))
    picture = gradient(t[:, :1], np.stack([zenith, low, low]))
    picture = mix(
        picture, hexes("ffffff")[0], smooth(noise(rng, w, h, 3, 7), 0.55, 0.95) * 0.6 * (t < 0.6)
    )
    for layer, (base, tall) in enumerate(((0.62, 0.36), (0.74, 0.5), (0.9, 0.5))):
        profile = 1 - np.abs(
            2 * ridge(rng, w, rng.uniform(0.7, 2.2), 7) - 1
        )  # folded noise makes peaks
        crest = base - tall * profile * rng.uniform(0.75, 1.0)
        mask = smooth(t - crest[None, :], 0, 0.006)
        relief = noise(rng, w, h, 5, 4, 6)
        light = np.clip(
            0.5 + 20 * np.gradient(relief, axis=1) + 8 * np.gradient(relief, axis=0), 0, 1
        )
        snow = smooth(base - 0.1 - t + 0.22 * (relief - 0.5), 0.0, 0.12)
        stone = rock * (0.55 + 0.6 * light[..., None])
        white = mix(np.broadcast_to(low * 0.62, (h, w, 3)), hexes("ffffff")[0], 0.25 + 0.75 * light)
        body = mix(stone, white, snow)
        picture = mix(picture, mix(body, low, np.float32(0.5 - 0.22 * layer) + 0 * t), mask)
    trees = 0.93 - 0.12 * ridge(rng, w, 3, 3) - 0.03 * ridge(rng, w, 60, 2)
    picture = mix(picture, wood, smooth(t - trees[None, :], 0, 0.008))
    return to_image(picture)


def dunes(rng: Random, w: int, h: int) -> Image.Image:
    """Sand dunes with a lit and a shaded side."""
    zenith, low, sand, shadow = pick(
        rng,
        (
            "5fa3d3 e9e4d0 e3b06a 8a5530",
            "e0a878 f7e0b8 d98a4e 7a3b26",
            "7db8d8 f2ead8 efcf94 a57a4c",
            "8a6f9a f2c0a0 d08a5a 5f3440",
        ),
    )
    x, y = axes(w, h)
    end = float(x[0, -1])
    t = np.broadcast_to(y / y[-1, 0], (h, w))
    picture = gradient(np.clip(t[:, :1] * 2, 0, 1), np.stack([zenith, low]))
    base, layers = rng.uniform(0.3, 0.45), int(rng.integers(3, 6))
    for layer in range(layers):
        near_by = layer / layers
        waves, phase = rng.uniform(0.5, 1.2) * (2 - near_by), rng.uniform(0, 6.3)
        s = np.sin(6.283 * waves * x[0] / end + phase)
        sharp = np.sign(s) * np.abs(s) ** rng.uniform(0.6, 1.0)
        crest = (
            base
            + (0.95 - base) * near_by
            - (0.05 + 0.07 * near_by) * sharp
            + 0.02 * ridge(rng, w, 2, 2)
        )
        below = t - crest[None, :].astype(np.float32)
        # The dark side runs from the crest down and away from the light, its edge wandering.
        side = np.gradient(crest) * w
        turn = noise(rng, w, h, 3, 3, 3) - 0.5
        lit = smooth(
            (0.9 * turn - side[None, :] * 1.6 + below * 2.2).astype(np.float32), -0.25, 0.35
        )
        ripple = np.sin(below * rng.uniform(160, 240) + 22 * turn + 9 * x)
        body = mix(np.broadcast_to(shadow, (h, w, 3)), sand, lit) * (
            1 + 0.045 * (ripple * near_by)[..., None]
        )
        body = mix(body, low, np.float32(0.45 * (1 - near_by) ** 2) + 0 * t)
        picture = mix(picture, body, smooth(below, 0, 0.005))
    grain = rng.normal(0, 0.012, (h, w, 1)).astype(np.float32)
    return to_image(picture + grain * (t > base)[..., None])


def flowers(rng: Random, w: int, h: int) -> Image.Image:
    """A field in bloom, larger flowers in front."""
    sky = pick(rng, ("7fb6e8 e8f3fa", "a7c8e6 fbe9d2", "5f9fd8 d5ebf5"))
    green = pick(rng, ("7fa650 3f6b2a", "94a84a 4f6a24", "6a9a5a 2c5a30"))
    petals = pick(
        rng,
        (
            "e23b2e f25a3c c9241f",
            "8a5fc0 a884d8 6a45a0",
            "f7c52b fbdc5a e8a613",
            "f28ab2 fbd0de e0568e",
            "ffffff fbf2d0 f2e4f0",
            "e23b2e f7c52b 8a5fc0",
        ),
    )
    horizon = rng.uniform(0.18, 0.42)
    _, y = axes(w, h)
    t = np.broadcast_to(y / y[-1, 0], (h, w))
    picture = gradient(np.clip(t[:, :1] / horizon, 0, 1), sky)
    picture = mix(picture, hexes("ffffff")[0], smooth(noise(rng, w, h, 3, 6), 0.55, 0.9) * 0.8)
    hills = horizon - 0.07 * ridge(rng, w, 3, 3)
    picture = mix(picture, green[1] * 0.8 + sky[0] * 0.25, smooth(t - hills[None, :], 0, 0.006))
    field = gradient(np.clip((t[:, :1] - horizon) / (1 - horizon), 0, 1), green)
    field = field * (0.7 + 0.6 * noise(rng, w, h, 60, 25, 3)[..., None])
    picture = mix(picture, field, smooth(t, horizon, horizon + 0.01))
    depths = np.sort(rng.random(int(rng.integers(240, 420))) ** 0.75)

    def bloom(draw: ImageDraw.ImageDraw) -> None:
        for depth in depths:
            a, b = (
                rng.uniform(0, 2 * w),
                2 * h * (horizon + 0.01 + (1 - horizon) * float(depth) ** 1.6),
            )
            r = 2 + 24 * float(depth) ** 1.8 * rng.uniform(0.7, 1.2)
            color = petals[rng.integers(len(petals))]
            gain = rng.uniform(0.8, 1.08)
            if r > 6:
                draw.line(
                    (a, b, a + rng.uniform(-4, 4), b + 3.2 * r),
                    ink(green[1], 0.8),
                    max(2, int(r / 6)),
                )
            if r < 4:
                draw.ellipse((a - r, b - r * 0.7, a + r, b + r * 0.7), ink(color, gain))
                continue
            turn = rng.uniform(0, 6.3)
            for petal in range(6):
                angle = turn + petal * math.pi / 3
                c, d = a + 0.62 * r * math.cos(angle), b + 0.5 * r * math.sin(angle)
                draw.ellipse(
                    (c - r * 0.5, d - r * 0.42, c + r * 0.5, d + r * 0.42),
                    ink(color, gain * (0.86 + 0.05 * (petal % 3))),
                )
            draw.ellipse((a - r * 0.27, b - r * 0.23, a + r * 0.27, b + r * 0.23), (236, 190, 60))

    return to_image(stroke(picture, bloom))


def underwater(rng: Random, w: int, h: int) -> Image.Image:
    """Fish in slanting light over a reef."""
    water = pick(rng, ("7fe0e0 1f8fb0 0a3a66", "9ae8d0 2a9a94 0c4a58", "6ac4f0 1a6ab0 0a2456"))
    scales = pick(
        rng, ("ff9a2e fff2dc", "ffd83a 2a2a4a", "f25a6a ffd0b0", "e8f0ff 5a7ac0", "a8e05a f4ffd0")
    )
    x, y = axes(w, h)
    end = float(x[0, -1])
    t = np.broadcast_to(y / y[-1, 0], (h, w))
    picture = gradient(t[:, :1], water)
    beams = ridge(rng, 512, 14, 3)
    slant = (x / end + (y - 0.1) * rng.uniform(-0.5, 0.5) * 0.6) * 0.5 + 0.25
    rays = smooth(beams[np.clip(slant * 511, 0, 511).astype(np.intp)], 0.45, 0.95) * (1 - t) ** 1.2
    picture = mix(picture, hexes("f2fffa")[0], rays * 0.55)
    floor = 0.9 - 0.1 * ridge(rng, w, 3, 3)
    bottom = water[1] * 0.35 + hexes("c8b48a")[0] * 0.5
    bottom_light = 0.7 + 0.5 * noise(rng, w, h, 14, 20, 3)[..., None]
    picture = mix(picture, bottom * bottom_light, smooth(t - floor[None, :], 0, 0.02))
    reef = pick(rng, ("c2476a e07a5f 8a4f8a", "e0916a d05a7a 5a6aa0", "7a4f9a c25a8a e0b06a"))

    def life(draw: ImageDraw.ImageDraw) -> None:
        for _ in range(int(rng.integers(4, 10))):
            a, color = (
                rng.uniform(0, 2 * w),
                ink(reef[rng.integers(len(reef))] * 0.8 + water[2] * 0.2),
            )
            size, foot = rng.uniform(0.1, 0.3) * h, 2 * h * rng.uniform(0.9, 1.0)
            for _ in range(int(rng.integers(5, 11))):
                lean, bend = rng.uniform(-0.8, 0.8), rng.uniform(-0.25, 0.25)
                points = [
                    (a + lean * size * q + bend * size * math.sin(5 * q), foot - size * 1.5 * q)
                    for q in np.linspace(0, 1, 6).tolist()
                ]
                draw.line(points, color, int(size / 9) + 2, joint="curve")
                c, d = points[-1]
                r = size / 13 + 2
                draw.ellipse((c - r, d - r, c + r, d + r), color)
        heading = rng.choice((-1, 1))
        for size in np.sort(rng.uniform(11, 44, int(rng.integers(5, 15)))).tolist():
            a, b = rng.uniform(0.05, 0.95) * 2 * w, rng.uniform(0.12, 0.78) * 2 * h
            f = float(heading if rng.random() < 0.85 else -heading)
            haze = 0.55 * (1 - size / 44)
            body, fin = (ink(c * (1 - haze) + water[1] * haze) for c in scales)
            draw.polygon(
                [
                    (a - f * size * 0.8, b),
                    (a - f * size * 1.6, b - size * 0.55),
                    (a - f * size * 1.4, b),
                    (a - f * size * 1.6, b + size * 0.55),
                ],
                body,
            )
            draw.polygon(
                [
                    (a - f * size * 0.4, b - size * 0.4),
                    (a + f * size * 0.1, b - size * 0.8),
                    (a + f * size * 0.4, b - size * 0.4),
                ],
                body,
            )
            draw.ellipse((a - size, b - size * 0.52, a + size, b + size * 0.52), body)
            for q in (-0.35, 0.2):
                c, tall = a + f * size * q, 0.5 * size * math.sqrt(1 - q * q)
                draw.ellipse((c - size * 0.1, b - tall, c + size * 0.1, b + tall), fin)
            e, r = a + f * size * 0.62, max(size * 0.09, 1.5)
            draw.ellipse((e - r, b - size * 0.16 - r, e + r, b - size * 0.16 + r), (15, 15, 25))
        for _ in range(int(rng.integers(8, 26))):
            a, b, r = rng.uniform(0, 2 * w), rng.uniform(0, 2 * h), rng.uniform(3, 10)
            draw.ellipse((a - r, b - r, a + r, b + r), outline=ink(water[0], 1.1), width=2)

    return to_image(stroke(picture, life))
