"""The ten scenes of the demo, each a function that paints one onto a `Canvas`."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

Array = npt.NDArray[Any]  # float32 unless said otherwise
WHITE = np.ones(3, np.float32)


class Canvas:
    """A picture while it is painted.

    Attributes:
        rng: Of everything that is random in the picture.
        w: Its width in pixels.
        h: Its height in pixels.
        x: (1, w), in units of the shorter side.
        y: (h, 1), likewise.
        down: (h, w), from 0 at the top to 1 at the bottom.
        pixels: (h, w, 3) colours from 0 to 1.
    """

    def __init__(self, rng: np.random.Generator, w: int, h: int) -> None:
        self.rng, self.w, self.h = rng, w, h
        self.x = np.arange(w, dtype=np.float32)[None, :] / min(w, h)
        self.y = np.arange(h, dtype=np.float32)[:, None] / min(w, h)
        self.down = np.broadcast_to(np.linspace(0, 1, h, dtype=np.float32)[:, None], (h, w))
        self.pixels: Array = np.zeros((h, w, 3), np.float32)

    def pick(self, palettes: str) -> Array:
        """One of the palettes ("f80 123|…"), its colours shifted a little, together."""
        words = str(self.rng.choice(palettes.split("|"))).split()
        colors = np.array([[int(digit, 16) for digit in word] for word in words], np.float32) / 15
        return np.clip(colors * self.rng.normal(1, 0.04, 3), 0, 1).astype(np.float32)

    def noise(self, across: float, down: float, octaves: int = 4) -> Array:
        """Fractal noise (h, w) from 0 to 1: random grids, each finer and half as strong."""
        total = np.zeros((1, 1), np.float32)
        for octave in range(octaves):
            size = int(across * 2**octave) + 2, int(down * 2**octave) + 2
            finer = self.rng.random(size[::-1], np.float32) / 2**octave
            total = _enlarged(total, size) + finer
        total = _enlarged(total, (self.w, self.h))
        return np.asarray((total - total.min()) / np.ptp(total))

    def ridge(self, cells: float, octaves: int) -> Array:
        """A profile (1, w) from 0 to 1."""
        return self.noise(cells, 0, octaves)[:1]

    def gradient(self, t: Array, colors: Array) -> None:
        """Fill with colours spread evenly over t, from 0 to 1."""
        stops = np.linspace(0, 1, len(colors))
        self.pixels = np.stack([np.interp(t, stops, channel) for channel in colors.T], -1)

    def over(self, color: Array, mask: Array) -> None:
        """Lay a colour or a picture over what is there, as far as the mask (h, w) says."""
        self.pixels = self.pixels + (color - self.pixels) * np.clip(mask, 0, 1)[..., None]

    @contextmanager
    def pen(self) -> Iterator[ImageDraw.ImageDraw]:
        """Draw shapes, in coordinates twice as fine, which smooths their edges."""
        image = self.image().resize((2 * self.w, 2 * self.h), Image.Resampling.BILINEAR)
        yield ImageDraw.Draw(image)
        self.pixels = np.asarray(image.reduce(2), np.float32) / 255

    def image(self) -> Image.Image:
        """The picture as 8 bits."""
        return Image.fromarray((np.clip(self.pixels, 0, 1) * 255 + 0.5).astype(np.uint8))


def _enlarged(grid: Array, size: tuple[int, int]) -> Array:
    return np.asarray(Image.fromarray(grid).resize(size, Image.Resampling.BICUBIC))


def smooth(x: Array, low: float, high: float) -> Array:
    """0 under low, 1 over high, a soft step between."""
    t = np.clip((x - low) / (high - low), 0, 1)
    return (t * t * (3 - 2 * t)).astype(np.float32)


def ink(color: Array, gain: float = 1.0) -> tuple[int, ...]:
    """A colour for a pen."""
    return tuple(int(min(max(c * gain, 0), 1) * 255) for c in color.tolist())


def seascape(c: Canvas) -> None:
    """The sun going down over the sea, and a sail."""
    sky = c.pick("336 a57 e85 fc7|236 659 d88 fda|246 479 ea7 fea")
    horizon, sun_x = c.rng.uniform(0.45, 0.66), c.rng.uniform(0.2, 0.8) * c.x.max()
    t = c.down / horizon
    c.gradient(np.where(t < 1, t, 2 - t), sky)  # the sea mirrors the sky
    c.over(sky[1], smooth(c.noise(3, 12, 5), 0.5, 0.9) * (t < 1) * 0.75)
    distance = np.hypot(c.x - sun_x, c.y - (horizon - c.rng.uniform(0, 0.2)) * c.y.max())
    c.over(sky[3], np.exp(-((distance / 0.22) ** 2)) * 0.7)
    c.over(WHITE, smooth(-distance, -0.075, -0.066) * (t < 1))
    depth, waves = np.clip((t - 1) * horizon / (1 - horizon), 0, 1), c.noise(9, 70, 3)
    c.over(sky[0] * 0.55, (t >= 1) * (0.1 + 0.45 * depth + 0.5 * waves))
    path = np.exp(-(((c.x - sun_x) / (0.05 + 0.22 * depth)) ** 2)) * smooth(waves, 0.42, 0.62)
    c.over(sky[3], path * (t >= 1) * 0.85)
    a, b, r = c.rng.uniform(0, 2 * c.w), (horizon + 0.03) * 2 * c.h, c.rng.uniform(20, 60)
    with c.pen() as pen:
        pen.chord((a - r, b - r / 2, a + r, b + r / 2), 0, 180, 0)
        pen.polygon([a, b, a, b - 2 * r, a + r, b], ink(sky[0], 0.55))
        pen.polygon([a - 4, b, a - 4, b - 1.6 * r, a - 0.8 * r, b], ink(sky[0], 0.4))


def forest(c: Canvas) -> None:
    """Rows of conifers in the mist."""
    mist, far, near = c.pick("ded 9b9 132|dec bb8 231|cdd 8aa 123")
    c.pixels += mist
    base = c.rng.uniform(0.3, 0.5)
    for nearness in np.linspace(0, 1, int(c.rng.integers(4, 7))).tolist():
        ground = base + (1.05 - base) * nearness - 0.1 * c.ridge(2, 2)[0]
        color = far + (near - far) * nearness**0.8
        c.over(color, c.down > ground)
        with c.pen() as pen:
            for at in c.rng.integers(0, c.w, int(26 - 15 * nearness)).tolist():
                tall = 2 * c.h * (0.1 + 0.4 * nearness) * c.rng.uniform(0.5, 1.2)
                foot, wide = 2 * c.h * float(ground[at]) + 8, tall * c.rng.uniform(0.17, 0.25)
                for tier in range(1, 8):
                    a, b = wide * tier / 7, foot - tall * (1 - tier / 7)
                    top = foot - tall * (1 - max(0, tier - 2) / 7)
                    pen.polygon([2 * at - a, b, 2 * at, top, 2 * at + a, b], ink(color))
        c.over(mist, 0.45 * (1 - nearness) * smooth(c.down, base - 0.2, ground.max() + 0.15))


def mountains(c: Canvas) -> None:
    """Snowy ridges under a clear sky."""
    zenith, low, rock, wood = c.pick("47b cde 566 233|58b edc 666 333|78b ecb 556 234")
    c.gradient(c.down, np.stack([zenith, low, low]))
    c.over(WHITE, smooth(c.noise(3, 7), 0.55, 0.95) * 0.6)
    for layer, (base, tall) in enumerate(((0.62, 0.36), (0.74, 0.5), (0.9, 0.5))):
        folded = 1 - np.abs(2 * c.ridge(c.rng.uniform(0.7, 2.2), 7) - 1)  # which makes peaks
        crest = base - tall * folded * c.rng.uniform(0.75, 1.0)
        relief = c.noise(5, 4, 6)
        light = np.clip(0.5 + 20 * np.gradient(relief, axis=1), 0, 1)[..., None]
        snow = smooth(base - 0.1 - c.down + 0.22 * (relief - 0.5), 0, 0.12)[..., None]
        body = rock * (0.55 + 0.6 * light) * (1 - snow) + (0.7 + 0.3 * light) * snow
        c.over(body + (low - body) * (0.5 - 0.22 * layer), smooth(c.down - crest, 0, 0.006))
    c.over(wood, smooth(c.down + 0.12 * c.ridge(3, 3) + 0.03 * c.ridge(60, 2), 0.93, 0.938))


def flowers(c: Canvas) -> None:
    """A field in bloom, larger flowers in front."""
    sky = c.pick("7be eef|ace fec|69d dee")
    green = c.pick("7a5 462|9a4 562|695 353")
    petals = c.pick("d33 e54 c22|86b a8d 649|fc3 fd5 ea1|e8a fcd d58")
    horizon = c.rng.uniform(0.18, 0.42)
    c.gradient((c.down - horizon) / (1 - horizon), green)
    c.pixels *= 0.7 + 0.6 * c.noise(60, 25, 3)[..., None]
    c.over(sky[0] + (sky[1] - sky[0]) * c.down[..., None] / horizon, c.down < horizon)
    c.over(WHITE, smooth(c.noise(3, 6), 0.55, 0.9) * 0.8 * (c.down < horizon))
    hills = smooth(c.down + 0.07 * c.ridge(3, 3), horizon, horizon + 0.01)
    c.over(green[1] * 0.9, hills * (c.down < horizon))
    with c.pen() as pen:
        for depth in np.sort(c.rng.random(int(c.rng.integers(240, 420))) ** 0.75).tolist():
            a, b = c.rng.uniform(0, 2 * c.w), 2 * c.h * (horizon + (1 - horizon) * depth**1.6)
            r, color = 2 + 24 * depth**1.8, petals[c.rng.integers(len(petals))]
            pen.line((a, b, a, b + 3 * r), ink(green[1], 0.8), int(r / 6) + 1)
            for angle in (c.rng.uniform(0, 6.3) + np.arange(6) * math.pi / 3).tolist():
                d, e = a + 0.62 * r * math.cos(angle), b + 0.5 * r * math.sin(angle)
                shade = ink(color, c.rng.uniform(0.85, 1.05))
                pen.ellipse((d - r / 2, e - 0.42 * r, d + r / 2, e + 0.42 * r), shade)
            pen.ellipse((a - r / 4, b - r / 4, a + r / 4, b + r / 4), (236, 190, 60))


def underwater(c: Canvas) -> None:
    """Fish in slanting light over the ground."""
    water = c.pick("7dd 28a 136|9ec 299 145|6ce 26a 125")
    body, fin = c.pick("f93 fed|fd3 224|e56 fca|eef 57b")
    c.gradient(c.down, water)
    column = (np.arange(c.w) + c.down * c.rng.uniform(-0.3, 0.3) * c.w).astype(np.intp) % c.w
    c.over(WHITE, smooth(c.ridge(14, 3)[0][column], 0.45, 0.95) * (1 - c.down) * 0.5)
    sand = (water[1] + WHITE) * (0.25 + 0.25 * c.noise(14, 20, 3)[..., None])
    c.over(sand, smooth(c.down + 0.1 * c.ridge(3, 3), 0.9, 0.92))
    with c.pen() as pen:
        for r in np.sort(c.rng.uniform(11, 44, int(c.rng.integers(5, 15)))).tolist():
            a, b = c.rng.uniform(0.05, 0.95) * 2 * c.w, c.rng.uniform(0.12, 0.78) * 2 * c.h
            f = r * float(c.rng.choice((-1, 1)))
            pen.polygon([a - f, b, a - 1.6 * f, b - r / 2, a - 1.6 * f, b + r / 2], ink(body))
            pen.polygon([a - f / 2, b, a, b - 0.8 * r, a + f / 2, b], ink(body))
            pen.ellipse((a - r, b - r / 2, a + r, b + r / 2), ink(body))
            pen.ellipse((a - r / 4, b - 0.46 * r, a, b + 0.46 * r), ink(fin))
            pen.ellipse((a + 0.6 * f - 4, b - 8, a + 0.6 * f + 4, b), (15, 15, 25))


def city(c: Canvas) -> None:
    """A skyline at night with lit windows, above water."""
    sky = c.pick("114 348 b79|013 247 7ac|214 538 e87|113 236 da7")
    shore = int(c.h * c.rng.uniform(0.74, 0.88))
    c.gradient(c.down * c.h / shore, sky)
    c.over(WHITE, (c.rng.random((c.h, c.w)) > 0.9985) * (1 - c.down))
    with c.pen() as pen:
        for layer, gain in enumerate((0.85, 0.5, 0.28)):
            left = -10
            while left < 2 * c.w:
                wide, tall = int(c.rng.integers(44, 116)), c.rng.uniform(0.15, 0.62)
                roof, right = int(2 * shore * (1 - tall * (1.1 - 0.28 * layer))), left + wide
                pen.rectangle((left, roof, right, 2 * shore), ink(sky[1], gain))
                light, lit = c.pick("fd8|feb|fb6|cef")[0], c.rng.uniform(0.1, 0.6)
                for a in range(left + 6, right - 8, 11):
                    for b in range(roof + 8, 2 * shore - 8, 15):
                        if c.rng.random() < lit:
                            pen.rectangle((a, b, a + 5, b + 7), ink(light, c.rng.uniform(0.55, 1)))
                left = right + int(c.rng.integers(-12, 24))
    rows = np.clip(2 * shore - 1 - np.arange(shore, c.h), 0, shore - 1)
    shift = ((c.noise(8, 40, 2)[shore:] - 0.5) * 16).astype(np.intp)
    columns = np.clip(np.arange(c.w) + shift, 0, c.w - 1)
    c.pixels = np.concatenate([c.pixels[:shore], c.pixels[rows[:, None], columns] * 0.6])


def balloons(c: Canvas) -> None:
    """Hot-air balloons over hills."""
    sky = c.pick("59d ace eec|69d dde fdb|48c 8ce eee|78c dbc fda")
    hills = c.pick("797 574|986 664|789 465")
    paints = c.pick("d33 fc3 27b eed 395 e83 859 d58 246 5bb")
    c.gradient(c.down, sky)
    c.over(WHITE, smooth(c.noise(2.5, 5, 5), 0.5, 0.85) * 0.85)
    for hill, foot in zip(hills, (0.86, 0.95), strict=True):
        c.over(hill, smooth(c.down + 0.14 * c.ridge(2, 3), foot, foot + 0.01))
    with c.pen() as pen:
        for r in np.sort(c.rng.uniform(30, 120, int(c.rng.integers(3, 8)))).tolist():
            a, b = c.rng.uniform(0.08, 0.92) * 2 * c.w, c.rng.uniform(0.14, 0.68) * 2 * c.h
            colors, gores = c.rng.permutation(paints)[:2], int(c.rng.integers(4, 8))
            for side in (-0.15, 0.15):
                pen.line((a + side * r, b + r, a + side * r, b + 1.6 * r), (70, 55, 45), 2)
            for gore in range(gores):  # from the widest to the narrowest, seen from the front
                wide = r * math.cos(gore / gores * math.pi / 2)
                color = ink(colors[gore % 2], 0.8 + 0.25 * gore / gores)
                pen.ellipse((a - wide, b - r, a + wide, b + r), color)
                low, foot, slim = b + 0.28 * r, b + 1.28 * r, wide / 4
                pen.polygon([a - wide, low, a + wide, low, a + slim, foot, a - slim, foot], color)
            pen.rectangle((a - 0.15 * r, b + 1.6 * r, a + 0.15 * r, b + 1.8 * r), (110, 72, 40))


def tiles(c: Canvas) -> None:
    """A tiled wall or floor: one motif, a few glazes."""
    glaze = c.rng.permutation(c.pick("eed 258 69c eb4|eee b43 e94 244|eee 276 8ba ec4"))
    angle, count = float(c.rng.choice((0, 0.2, math.pi / 4))), c.rng.uniform(4, 8.5)
    u = (c.x * math.cos(angle) + c.y * math.sin(angle)) * count + c.rng.uniform(0, 1)
    v = (c.y * math.cos(angle) - c.x * math.sin(angle)) * count + c.rng.uniform(20, 21)
    column, row = np.floor(u).astype(np.intp), np.floor(v).astype(np.intp)
    a, b, odd = np.abs(u - column - 0.5), np.abs(v - row - 0.5), (column + row) % 2 == 1
    away, outer, inner = [
        (np.hypot(a, b), 0.4, 0.24),  # rounds
        (a + b, 0.46, 0.2),  # diamonds
        (np.hypot(0.5 - a, 0.5 - b), 0.42, 0.25),  # quarter circles
        (np.minimum(np.maximum(a, b), (a + b) * 0.7071), 0.3, 0.13),  # eight-pointed stars
    ][int(c.rng.integers(4))]
    c.pixels += glaze[0]
    c.over(glaze[1], smooth(outer - away, -0.02, 0.02))
    c.over(np.where(odd[..., None], glaze[2], glaze[3]), smooth(inner - away, -0.02, 0.02))
    c.pixels *= c.rng.normal(1, 0.05, (64, 64))[row % 64, column % 64][..., None]
    c.over(np.full(3, 0.5), smooth(np.maximum(a, b), 0.472, 0.485))


def wood(c: Canvas) -> None:
    """Planks with grain and knots."""
    dark, light = c.pick("742 c95|421 853|963 eb8|632 a63|765 ba8")
    lying = c.rng.random() < 0.5
    along, across = (c.x, c.y) if lying else (c.y, c.x)
    planks = int(c.rng.integers(2, 6)) / float(across.max())
    plank = np.broadcast_to(np.floor(across * planks).astype(np.intp), (c.h, c.w))
    grain = c.noise(2, 16, 3) if lying else c.noise(16, 2, 3)
    rings = across * 9 + c.rng.uniform(0, 30, 16)[plank] + 2.6 * grain
    knot = np.hypot((along - c.rng.uniform(0, 1.3)) * 0.45, across - c.rng.uniform(0, 1))
    rings += 2.4 * np.exp(-((knot / 0.055) ** 2)) + 0.4 * np.exp(-((knot / 0.16) ** 2))
    fibre = c.noise(6, 150, 2) if lying else c.noise(150, 6, 2)
    figure = smooth(rings * 1.6 % 1, 0, 0.75) * smooth(1 - rings * 1.6 % 1, 0, 0.12)
    c.pixels += light
    c.over(dark, 0.62 * figure + 0.55 * (fibre - 0.4))
    c.pixels *= c.rng.normal(1, 0.09, 16)[plank][..., None]
    seam = np.abs(across * planks - np.round(across * planks))
    c.over(dark * 0.25, np.broadcast_to(smooth(0.022 - seam, 0, 0.012), (c.h, c.w)))


def galaxy(c: Canvas) -> None:
    """Stars, clouds of gas, and a spiral."""
    night, gas, glow, core = c.pick("001 327 b48 fec|001 146 39a fed|001 238 86d eef")
    clouds, veins = c.noise(3, 3, 6), c.noise(5, 5, 6)
    c.pixels += night
    c.over(gas, smooth(clouds, 0.25, 0.85) * 0.85)
    c.over(glow, smooth(clouds * veins, 0.26, 0.62) * 0.75)
    a, b = (c.rng.uniform(0.35, 0.65) * float(axis.max()) for axis in (c.x, c.y))
    turn, tilt, size = c.rng.uniform(0, 3.1), c.rng.uniform(0.35, 0.9), c.rng.uniform(0.16, 0.3)
    p = (c.x - a) * math.cos(turn) + (c.y - b) * math.sin(turn)
    q = ((c.y - b) * math.cos(turn) - (c.x - a) * math.sin(turn)) / tilt
    r = np.hypot(p, q) / size + 1e-4
    arms = 0.5 + 0.5 * np.cos(2 * np.arctan2(q, p) - 5.5 * np.log(r) + 2.4 * (veins - 0.5))
    c.over((glow + core) / 2, np.exp(-1.1 * r) * (0.25 + 1.5 * arms**1.5) * (0.6 + 0.8 * veins))
    c.over(core, np.exp(-((r / 0.33) ** 2)) + 0.5 * np.exp(-2.6 * r))
    c.over(WHITE, smooth(c.rng.random((c.h, c.w)), 0.9955, 1))
