"""Answers as people in notebooks and programs with an event loop have them."""

from __future__ import annotations

import asyncio
import io
import re
import sys
from base64 import b64decode
from pathlib import Path

import pytest
from PIL import Image

import lookalike
from lookalike import Neighbour, Neighbours, RequestError


def neighbour(uri: str, rank: int = 1, **metadata: object) -> Neighbour:
    return Neighbour("query.jpg", rank, uri, 0.5, 7 + rank, ("/b",), metadata)


def test_a_notebook_shows_pictures_and_names_of_what_gives_none(
    indexed: tuple[Path, Path], tmp_path: Path
) -> None:
    _, pictures = indexed
    hostile = tmp_path / '<script>alert(1)</script>".jpg'.replace("/", "_")
    hostile.write_bytes(b"\xff\xd8\xff\xe0 no picture")
    whole = pictures / "first" / "0.png"
    found = Neighbours(
        [neighbour(str(whole), 1, label="<b>"), neighbour(str(hostile), 2), neighbour("/gone", 3)],
        "query <1>.jpg",
        complete=False,
    )
    page = found._repr_html_()
    [data] = re.findall(r"data:image/jpeg;base64,([^\"]+)", page)
    with Image.open(io.BytesIO(b64decode(data))) as small:
        assert small.size == (192, 144)
    assert "<script>" not in page
    assert "<b>" not in page
    assert "query &lt;1&gt;.jpg: 3 neighbours (others may" in page
    assert "&lt;script&gt;" in page
    assert ">/gone</span>" in page
    assert str(whole) in found[0]._repr_html_()


def test_a_name_that_is_no_unicode_is_shown() -> None:
    assert "a?b" in neighbour("a\udc80b")._repr_html_()


def test_an_answer_becomes_a_table(monkeypatch: pytest.MonkeyPatch) -> None:
    found = Neighbours([neighbour("/a", 1, label="x", size=3), neighbour("/c", 2, label="y")])
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "pandas", None)
        with pytest.raises(RequestError, match="to_pandas: pandas is not here: pip install pandas"):
            found.to_pandas()
    pytest.importorskip("pandas", reason="pandas is not installed")
    frame = found.to_pandas()
    assert list(frame.columns) == [
        "query_uri",
        "rank",
        "uri",
        "score",
        "id",
        "duplicates",
        "label",
        "size",
    ]
    assert frame["uri"].tolist() == ["/a", "/c"]
    assert frame["label"].tolist() == ["x", "y"]
    assert list(Neighbours().to_pandas().columns)[:3] == ["query_uri", "rank", "uri"]


def test_searches_in_an_event_loop(indexed: tuple[Path, Path]) -> None:
    searcher = lookalike.open(indexed[0])
    row = searcher.search(indexed[1] / "first" / "0.png", k=1)[0][0].uri

    async def ask() -> list[list[Neighbours]]:
        return await asyncio.gather(
            *(searcher.search_async(like=row, k=k, exclude_self=True) for k in (1, 2, 3))
        )

    assert [len(one) for [one] in asyncio.run(ask())] == [1, 2, 3]
    with pytest.raises(RequestError, match="one of them only"):
        asyncio.run(searcher.search_async())
