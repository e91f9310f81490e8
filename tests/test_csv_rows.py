from __future__ import annotations

import csv
import io
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lookalike import csv_rows
from lookalike.csv_rows import read_csv
from lookalike.errors import RequestError


def read(text: str | bytes) -> list[list[str]]:
    data = text.encode() if isinstance(text, str) else text
    return list(read_csv(io.BytesIO(data), "m.csv"))


def refused(text: str | bytes) -> str:
    with pytest.raises(RequestError) as caught:
        read(text)
    message = str(caught.value)
    assert message.startswith("m.csv: line")
    assert "\n" not in message
    return message.removeprefix("m.csv: ")


def manifest(rows: int, texts: dict[int, str]) -> str:
    """A line per picture, of which some have another text."""
    return "uri,label\n" + "".join(f"p/{i:04d}.jpg,{texts.get(i, 'x')}\n" for i in range(rows))


# --- what is read, is read exactly --------------------------------------------------------------


class _Steps(io.RawIOBase):
    """Bytes of which a read gives only so many at once."""

    def __init__(self, data: bytes, step: int) -> None:
        self._data, self._step, self._at = data, step, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        piece = self._data[self._at : self._at + min(self._step, len(buffer))]
        buffer[: len(piece)] = piece
        self._at += len(piece)
        return len(piece)


TEXT = st.text(st.sampled_from('\r\n,"; éx\u2028'), max_size=6)
ROWS = st.lists(st.tuples(TEXT, TEXT, TEXT), max_size=6)
ENCODINGS = ("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32")


@given(ROWS, st.sampled_from(["\n", "\r\n", "\r"]), st.sampled_from(ENCODINGS), st.integers(1, 9))
@example([("\r\n", "\r", "\n")], "\r\n", "utf-8", 1)
def test_fields_come_back_as_they_were(
    rows: list[tuple[str, str, str]], end: str, encoding: str, step: int
) -> None:
    """Whatever the line ends, the encoding, and where a block of the file ends."""
    table = [["uri", "a", "b", "c"], *([f"p/{i}.jpg", *row] for i, row in enumerate(rows))]
    output = io.StringIO(newline="")
    csv.writer(output, quoting=csv.QUOTE_ALL, lineterminator=end).writerows(table)
    data = output.getvalue().encode(encoding)
    file = io.BufferedReader(_Steps(data, max(step, 4)))
    assert list(read_csv(file, "m.csv")) == table


@pytest.mark.parametrize("size", [16, 4096, 8192, 8193])
def test_line_ends_within_quotes_are_kept_wherever_a_block_ends(size: int) -> None:
    texts = [f"{'é' * (i % 7)}{i}\r\n\r\nb\rc\nd" for i in range(2000)]
    data = "uri,v\r\n" + "".join(f'{i}.jpg,"{text}"\r\n' for i, text in enumerate(texts))
    file = io.BufferedReader(_Steps(data.encode(), size), size)
    assert [row[1] for row in read_csv(file, "m.csv")][1:] == texts


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("uri,x\na,1", [["a", "1"]]),  # no last line end
        ("uri,x\n\n\na,1\n\r\n", [["a", "1"]]),
        ("uri\n\na\n", [["a"]]),
        ('uri\n""\n', [[""]]),  # not a blank line
        ("uri,x,\na,1,\n", [["a", "1", ""]]),
        ('uri,x\na,x"y\n', [["a", 'x"y']]),  # a quote counts at the beginning of a field
        ('uri,x\na,12"\nb,12"\n', [["a", '12"'], ["b", '12"']]),
        ('uri,x\na, "b" \n', [["a", ' "b" ']]),
        ('uri,x\na,""""\n', [["a", '"']]),
        ("uri,x\ra,1\rb,2\r", [["a", "1"], ["b", "2"]]),
        ("uri,x\r\r\na,1\r\r\n", [["a", "1"]]),
        ("uri,x\na\\,1\n", [["a\\", "1"]]),
        ("\ufeffuri,x\na,1\n", [["a", "1"]]),
        ('\ufeff"uri",x\na,1\n', [["a", "1"]]),
        ("uri,x\na,\ufffd\x1a\x85\u2029\n", [["a", "\ufffd\x1a\x85\u2029"]]),
    ],
)
def test_rows(text: str, rows: list[list[str]]) -> None:
    found = read(text)
    assert found[0][0] == "uri"
    assert found[1:] == rows


def test_a_long_field_is_read_whole() -> None:
    long = "words, and \r\n" * 80_000
    assert read(f'uri,x\na.jpg,"{long}"\nb.jpg,y\n')[1:] == [["a.jpg", long], ["b.jpg", "y"]]


# --- what is refused, with its lines ------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        # 89 of 100 rows were once the text of one field
        (manifest(100, {10: '"12 inch'}), "lines 12 to 101: a quote is opened and never closed"),
        (manifest(100, {99: '"12 inch'}), "line 101: a quote is opened and never closed"),
        (manifest(100, {10: '"12 inch', 80: '"12 inch'}), "lines 12 to 82: text after a closed"),
        (manifest(100, {10: '"12 inch', 40: '"a, b"'}), "lines 12 to 42: text after a closed"),
        (manifest(9, {3: '"12\\" inch"'}), "line 5: text after a closed quote"),
        (manifest(9, {3: '"x" '}), "line 5: text after a closed quote"),
        ('uri,"label\na.jpg,x\n', "lines 1 to 2: a quote is opened and never closed"),
        ("uri,x\na,1,2\n" + "b,1\n" * 3 + "c\n", "line 2: 3 fields where the header has 2, as"),
        ("uri,x,y\na,1,2\nb,1\nc,1\n", "line 3: 2 fields where the header has 3, as have 1 rows"),
        ('uri,x,y\na,"1\n1",2,3\n', "lines 2 to 3: 4 fields where the header has 3; is a quote"),
        ("uri,x\na,1\n \n", "line 3: 1 field where the header has 2; is it cut short?"),
        ("uri,x\na,1\0\n", "line 2: a NUL character"),
        ("uri,x\n" + "\0" * 5000, "line 2: a NUL character"),
        (b'uri,x\na,"1\n\n2\xff"\n', "line 4: the byte 0xff is no UTF-8; save the file as UTF-8"),
        (b"uri,x\n\xc3", "line 2: the byte 0xc3 is no UTF-8"),
        (b"uri,x\na,\xed\xa0\x80\n", "line 2: the byte 0xed is no UTF-8"),
        ("uri,x\na,\u20ac\n".encode("utf-16")[:-1], "line 2 or one soon after it: no UTF-16"),
        (b"\xff\xfeu\0r\0i\0\n\0\0\xd8a\0", "line 1 or one soon after it: no UTF-16"),
        (b"u\0r\0i\0\n\0a\0\0\0\n\0", "line 2: a NUL character"),
    ],
)
def test_what_is_not_sound_is_refused_with_its_lines(text: str | bytes, message: str) -> None:
    assert refused(text).startswith(message)


SWALLOWED: dict[str, str] = {
    "seventy": manifest(100, {10: '"12 inch', 80: '12 inch"'}),
    "one": manifest(100, {10: '"12 inch', 11: '12 inch"'}),
    "none between, doubled": manifest(100, {10: '"12 inch', 11: '""', 12: '12 inch"'}),
    "in the middle": 'uri,size,n\na.jpg,"12,1\nb.jpg,9,1\nc.jpg,12",1\n',
    "uri last": 'size,uri\n"12,a.jpg\n9,b.jpg\n12",c.jpg\n',
    "quoted before": 'uri,size,n\n"a, b.jpg","big, 12,1\nb.jpg,9,1\nc.jpg,12",1\n',
    "quoted after": 'uri,size,note\na.jpg,"12,x\nb.jpg,9,x\nc.jpg,12","big, red"\n',
    "the uri itself": 'uri\n"a.jpg\nb.jpg\nc.jpg"\n',
    "the uri and more": 'uri,size\n"a.jpg,12\nb.jpg,9\nc.jpg",12\n',
    "several suffixes": 'uri,size\na.jpg,"12\nb.png,9\nc.webp,12"\n',
    "no suffix, a folder": 'uri,size\ns/abc,"12\ns/de,9\ns/f,12"\n',
    "no suffix, a scheme": 'uri,size\ns3://x/abc,"12\ns3://y/de,9\ns3://z/f,12"\n',
    "numbers": 'uri,size\n000123,"12\n000124,9\n000125,12"\n',
    "hashes": 'uri,size\n3f2a9c,"12\n90b1ee,9\nb77a10,12"\n',
    "ends of lines": 'uri,size\r\na.jpg,"12\r\nb.jpg,9\r\nc.jpg,12"\r\n',
    "blank lines": 'uri,size\na.jpg,"12\n\nb.jpg,9\n\nc.jpg,12"\n',
    "one of them torn": 'uri,size\na.jpg,"12\nb.jpg,9,9\nc.jpg\nd.jpg,12"\n',
    "the header": 'uri,"size\na.jpg,12"\nb.jpg,9\n',
}


@pytest.mark.parametrize("name", SWALLOWED)
def test_rows_within_a_field_are_told(name: str) -> None:
    """Two stray quotes make sound CSV of one long field, and rows would be gone."""
    assert "a quoted field goes over all of them, and they look like rows" in refused(
        SWALLOWED[name]
    )


CAPTIONS = {
    "prose": "First line, with a comma\nsecond, too\nand a third,",
    "a recipe": "flour, 200 g\nsugar, 100 g\nbutter, 50 g\neggs, 3\n" * 5,
    "paragraphs": "one, two\n\nthree, four\n\n\nfive",
    "camera": "Make,Canon\nModel,EOS 5D\nLens,24-70 mm f/2.8\n",
    "numbers": "1, 2\n30, 40\n500, 600\n",
    "a file's name in it": "a scan;\nsee photo2.jpg, left, and photo3.jpg, right",
    "a link": "more at\nhttps://example.org/a, which is new",
    "quotes": 'She said "no,\nnever"\nand "" went, too',
    "line ends": "\r\n\r\n\n\r,",
    "lines alone": "\n" * 5000,
}


@pytest.mark.parametrize("caption", CAPTIONS)
@pytest.mark.parametrize("uri", ["p/a.jpg", "a.jpg", "/d/e/0001", "0001", "s3://bucket/a b.png"])
def test_captions_of_several_lines_pass(uri: str, caption: str) -> None:
    rows = [["uri", "caption"], [uri, CAPTIONS[caption]], ["b", "x"]]
    output = io.StringIO(newline="")
    csv.writer(output).writerows(rows)
    assert read(output.getvalue()) == rows


def test_a_name_with_a_line_end_passes() -> None:
    assert read('uri\n"new\nline.jpg"\n') == [["uri"], ["new\nline.jpg"]]


def test_a_row_without_end_is_refused_before_it_fills_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(csv_rows, "MAX_ROW", 1 << 18)
    lines = 'uri,x\na,"\n' + "b,1\n" * 100_000
    assert refused(lines).startswith("lines 2 to 65538: a row of more than 262,144 characters")
    assert refused("uri,x\n" + "y" * (1 << 19)).startswith("line 2: a row of more than 262,144")
