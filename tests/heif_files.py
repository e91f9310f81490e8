"""HEIC and AVIF files given other properties, by changing the boxes of files that were encoded."""

import struct

from lookalike.images.containers import boxes
from lookalike.images.heif_grid import _places
from lookalike.images.heif_properties import Items


def box(kind, *content):
    """A box of ISO base media files; a full box where its content begins with four bytes."""
    body = b"".join(content)
    return struct.pack(">I4s", 8 + len(body), kind) + body


def clap(width, height, right=0, down=0):
    """A clean aperture: its size, and how far its centre is from the picture's; pairs are n/d."""
    values = [v if isinstance(v, tuple) else (v, 1) for v in (width, height, right, down)]
    return box(b"clap", *(struct.pack(">ii", *value) for value in values))


def cut_to(size, left, top, right, bottom):
    """The clean aperture that cuts a picture of that size to a rectangle of whole pixels."""
    width, height = right - left, bottom - top
    return clap(width, height, (left + right - size[0], 2), (top + bottom - size[1], 2))


def irot(turns):
    """A turn by so many quarters, anticlockwise."""
    return box(b"irot", bytes([turns]))


def imir(axis):
    """A mirror: 0 exchanges top and bottom, 1 left and right."""
    return box(b"imir", bytes([axis]))


def nclx(primaries, transfer, matrix=6, full=True):
    """Colour by the numbers of ITU-T H.273."""
    return box(b"colr", b"nclx", struct.pack(">3HB", primaries, transfer, matrix, full << 7))


def _split(data):
    return [(kind, data[at:end]) for kind, at, end in boxes(data)]


def with_properties(data, *properties, instead_of=(), wide=False):
    """A file whose primary picture has further properties, in this order, after its own.

    Args:
        data: the file.
        *properties: the boxes to add.
        instead_of: types of properties that the picture no longer has.
        wide: whether numbers of items and properties have 32 and 16 bits, not 16 and 8.
    """
    meta = next(content for kind, content in _split(data) if kind == b"meta")
    parts = dict(_split(meta[4:]))
    item = int.from_bytes(parts[b"pitm"][4:6], "big")
    assert parts[b"pitm"][:1] == b"\0"
    inner = _split(parts[b"iprp"])
    ipco = next(content for kind, content in inner if kind == b"ipco")
    kinds = [kind for kind, _ in _split(ipco)]
    first = len(kinds) + 1
    ipma = b""
    for kind, content in inner:
        if kind == b"ipma":
            ipma = _associated(
                content,
                item,
                range(first, first + len(properties)),
                [i + 1 for i, k in enumerate(kinds) if k in instead_of],
            )
    if wide:
        ipma = _widened(ipma)
    iprp = box(b"iprp", box(b"ipco", ipco, *properties), box(b"ipma", ipma))
    parts[b"iprp"] = iprp[8:]
    grown = len(iprp) - 8 - sum(8 + len(content) for _, content in inner)
    parts[b"iloc"] = _moved(parts[b"iloc"], grown)
    top = dict(_split(data))
    top[b"meta"] = meta[:4] + b"".join(box(kind, content) for kind, content in parts.items())
    if b"moov" in top:
        top[b"moov"] = _chunks_moved(top[b"moov"], grown)
    return b"".join(box(kind, content) for kind, content in top.items())


def _associated(ipma, item, added, dropped):
    """The associations of properties with items, with more of them for one item."""
    assert ipma[:4] == bytes(4)
    count, at, out = int.from_bytes(ipma[4:8], "big"), 8, ipma[:8]
    for _ in range(count):
        number, of = struct.unpack(">HB", ipma[at : at + 3])
        have = ipma[at + 3 : at + 3 + of]
        at += 3 + of
        if number == item:
            have = bytes(i for i in have if i & 0x7F not in dropped) + bytes(
                0x80 | i for i in added
            )
        out += struct.pack(">HB", number, len(have)) + have
    return out


def _widened(ipma):
    """The same associations in the form for many items and properties."""
    at, out = 8, b"\1\0\0\1" + ipma[4:8]
    for _ in range(int.from_bytes(ipma[4:8], "big")):
        number, of = struct.unpack(">HB", ipma[at : at + 3])
        out += struct.pack(">IB", number, of)
        for one in ipma[at + 3 : at + 3 + of]:
            out += struct.pack(">H", (one & 0x80) << 8 | one & 0x7F)
        at += 3 + of
    return out


def _moved(iloc, by):
    """The places of items in a file, all of them farther on, but those within `idat`."""
    version, sizes, base = iloc[0], iloc[4], iloc[5] >> 4
    assert (version < 2, sizes, iloc[5] & 15) == (True, 0x44, 0)
    out, at = bytearray(iloc), 8
    for _ in range(int.from_bytes(iloc[6:8], "big")):
        in_file = version == 0 or iloc[at + 3] & 15 == 0
        at += 4 + 2 * version
        if base and in_file:
            place = int.from_bytes(iloc[at : at + base], "big")
            if place:
                out[at : at + base] = (place + by).to_bytes(base, "big")
                in_file = False
        at += base
        extents = int.from_bytes(iloc[at : at + 2], "big")
        at += 2
        for _ in range(extents):
            place = int.from_bytes(iloc[at : at + 4], "big")
            out[at : at + 4] = (place + by * in_file).to_bytes(4, "big")
            at += 8
    return bytes(out)


def with_sample_properties(data, *properties):
    """A sequence whose first track describes its frames by further properties."""
    path = (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd", b"av01")
    heads = {b"stsd": 8, b"av01": 78}

    def inside(content, depth):
        if depth == len(path):
            return content + b"".join(properties)
        head = heads.get(path[depth - 1], 0) if depth else 0
        parts = []
        for kind, inner in _split(content[head:]):
            chosen = kind == path[depth] and all(k != kind for k, _ in parts)
            parts.append((kind, inside(inner, depth + 1) if chosen else inner))
        return content[:head] + b"".join(box(*part) for part in parts)

    parts = _split(inside(data, 0))
    return b"".join(
        box(kind, _chunks_moved(content, sum(map(len, properties))) if kind == b"moov" else content)
        for kind, content in parts
    )


def _chunks_moved(content, by):
    """The boxes of a film whose chunks lie farther on in the file."""
    parts = []
    for kind, inner in _split(content):
        if kind in (b"trak", b"mdia", b"minf", b"stbl"):
            inner = _chunks_moved(inner, by)
        elif kind == b"stco":
            places = struct.unpack(f">{len(inner[8:]) // 4}I", inner[8:])
            inner = inner[:8] + struct.pack(f">{len(places)}I", *(place + by for place in places))
        parts.append(box(kind, inner))
    return b"".join(parts)


def as_grid(files, rows, columns, width, height, *properties):
    """A HEIC file whose picture is a grid of the pictures of others, again and again in turn.

    Args:
        files: each of one picture coded by HEVC, all of one size.
        rows: of the grid.
        columns: of the grid.
        width: of the picture, which leaves out what is beyond.
        height: of the picture.
        *properties: boxes that the whole has besides its size.
    """
    count, coded, known, associations = rows * columns, [], [], b""
    for data in files:
        items = Items.read(data)
        coded.append(b"".join(data[at : at + n] for at, n in _places(data)[items.primary]))
        known += [
            box(*one) for one in items.properties(items.primary) if one[0] in (b"hvcC", b"ispe")
        ]
    for i in range(count):
        first = 1 + 2 * (i % len(files))
        associations += struct.pack(">HBBB", i + 1, 2, first, first + 1)
    whole = count + 1
    mine = [box(b"ispe", bytes(4), struct.pack(">II", width, height)), *properties]
    associations += struct.pack(">HB", whole, len(mine))
    associations += bytes(range(len(known) + 1, len(known) + 1 + len(mine)))
    descriptor = bytes([0, 0, rows - 1, columns - 1]) + struct.pack(">HH", width, height)
    entries = b"".join(
        box(
            b"infe",
            b"\2\0\0" + bytes([i != whole]),
            struct.pack(">HH", i, 0),
            (b"grid" if i == whole else b"hvc1") + b"\0",
        )
        for i in range(1, whole + 1)
    )
    references = box(b"dimg", struct.pack(f">HH{count}H", whole, count, *range(1, whole)))
    parts = [*coded, descriptor]

    def meta(at):
        starts = [at + sum(map(len, parts[:i])) for i in range(len(parts))]
        which = [i % len(files) for i in range(count)] + [len(files)]
        places = b"".join(
            struct.pack(">HHHHII", i, 0, 0, 1, starts[part], len(parts[part]))
            for i, part in enumerate(which, 1)
        )
        return box(
            b"meta",
            bytes(4),
            box(b"hdlr", bytes(8), b"pict", bytes(13)),
            box(b"pitm", bytes(4), struct.pack(">H", whole)),
            box(b"iinf", bytes(4), struct.pack(">H", whole), entries),
            box(
                b"iprp",
                box(b"ipco", *known, *mine),
                box(b"ipma", bytes(4), struct.pack(">I", whole), associations),
            ),
            box(b"iref", bytes(4), references),
            box(b"iloc", b"\1\0\0\0\x44\0", struct.pack(">H", whole), places),
        )

    start = box(b"ftyp", b"heic", bytes(4), b"mif1heic")
    return start + meta(len(start) + len(meta(0)) + 8) + box(b"mdat", *parts)
