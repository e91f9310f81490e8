"""ICC profiles, made tag by tag, for the tests of colour."""

import struct

from PIL import ImageCms


def icc(kind="RGB"):
    """A display profile in which red and blue have changed places: no way to overlook it."""
    data = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    table = data.index(b"rXYZ"), data.index(b"bXYZ")
    for at, name in zip(table, (b"bXYZ", b"rXYZ"), strict=True):
        data[at : at + 4] = name
    return bytes(data).replace(b"s\0R\0G\0B", b"t\0e\0s\0t").replace(b"sRGB", b"test")


def number(value):
    """A fixed-point number of a profile."""
    return struct.pack(">i", round(value * 65536))


D50 = b"".join(map(number, (0.9642, 1, 0.8249)))


def display_p3():
    """The profile that phones write: P3's primaries at D50, and sRGB's curve."""
    curve = b"".join(map(number, (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)))
    white, red = (0.95045, 1, 1.08905), (0.51512, 0.24120, -0.00105)
    green, blue = (0.29198, 0.69225, 0.04189), (0.15710, 0.06657, 0.78407)
    tags = []
    for name, place in ((b"wtpt", white), (b"rXYZ", red), (b"gXYZ", green), (b"bXYZ", blue)):
        tags.append((name, b"XYZ \0\0\0\0" + b"".join(map(number, place))))
    tags += [(name, b"para\0\0\0\0\0\3\0\0" + curve) for name in (b"rTRC", b"gTRC", b"bTRC")]
    return profile(b"RGB ", tags)


def gray_profile(gamma):
    """A profile of gray whose curve is a power."""
    curve = b"curv\0\0\0\0\0\0\0\1" + struct.pack(">H", round(gamma * 256)) + bytes(2)
    return profile(b"GRAY", [(b"wtpt", b"XYZ \0\0\0\0" + D50), (b"kTRC", curve)])


def profile(space, tags):
    """A display profile of these tags, and a name."""
    tags = [(b"desc", b"desc\0\0\0\0\0\0\0\3P3\0" + bytes(78)), *tags]
    table, body = struct.pack(">I", len(tags)), b""
    for name, data in tags:
        table += name + struct.pack(">II", 132 + 12 * len(tags) + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    head = bytearray(128)
    head[:4] = struct.pack(">I", len(head) + len(table) + len(body))
    head[8:24], head[36:40], head[68:80] = b"\2\x40\0\0mntr" + space + b"XYZ ", b"acsp", D50
    return bytes(head) + table + body
