"""Requests that mean no good, or make no sense: a 4xx with a reason, and nothing is read."""

from __future__ import annotations

import io
import json
import os
import socket
import struct
import sys
import tempfile
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from lookalike.cache_folder import cache_folder
from lookalike.errors import RequestError
from lookalike.serve.gate import check_access
from lookalike.serve.limits import Limits
from tests.conftest import picture
from tests.serving import Served, form, serving
from tests.test_serve import png

TOKEN = "a-token-of-some-length"
SHA = "0" * 64
PATHS = (
    "/etc/passwd",
    "../../../../etc/passwd",
    "..\\..\\windows",
    "....//etc/passwd",
    "~/.ssh/id",
)
ROUTES = (
    "/api/image/{}",
    "/api/image/{}/thumbnail",
    "/api/image/{}/original",
    "/api/image/{}/neighbours",
    "/api/picture/{}/thumbnail",
    "/static/{}",
)
opened: list[str] = []
watching = False


def watch(event: str, arguments: Any) -> None:
    if watching and event == "open" and isinstance(arguments[0], str | bytes):
        opened.append(os.path.realpath(os.fsdecode(arguments[0])))


sys.addaudithook(watch)


@pytest.fixture(scope="module")
def served(indexed: tuple[Path, Path]) -> Iterator[Served]:
    limits = Limits(upload_bytes=1 << 20, seconds=2)
    with serving(indexed[0], limits=limits) as found:
        found.get("/api/stats")
        yield found


@pytest.fixture
def nothing_is_read(indexed: tuple[Path, Path]) -> Iterator[None]:
    """No file is opened meanwhile but the store's, its pictures', and the server's own."""
    global watching
    opened.clear()
    watching = True
    yield
    watching = False
    allowed = [
        str(indexed[0].parent.resolve()),
        str(cache_folder()),
        tempfile.gettempdir() + "/lookalike-serve-",
        sys.prefix,
        sys.base_prefix,
        "/proc/",
        "/dev/",
        "/sys/",
        str(Path(__file__).resolve().parent.parent),
    ]
    outside = [
        path
        for path in opened
        if not path.startswith(tuple(map(os.path.realpath, allowed)))
        and not path.startswith(tuple(allowed))
    ]
    assert outside == []


def refused(found: Any, *statuses: int) -> None:
    assert found.status in (statuses or range(400, 500)), (found.status, found.body[:200])
    told = json.loads(found.body)
    assert set(told) == {"error"}
    assert told["error"]
    assert "\n" not in told["error"]
    assert len(told["error"]) < 700
    assert found.headers["x-content-type-options"] == "nosniff"


# --- paths --------------------------------------------------------------------------------------


def ways_to_write(path: str) -> list[str]:
    plain = path.replace("\\", "%5c")
    encoded = "".join(f"%{byte:02x}" for byte in path.encode())
    return [
        plain,
        encoded,
        encoded.replace("%", "%25"),
        plain.replace("..", "%c0%ae%c0%ae"),
        plain + "%00.png",
        plain.replace("/", "%2f"),
    ]


@pytest.mark.usefixtures("nothing_is_read")
@pytest.mark.parametrize("route", ROUTES)
def test_paths_lead_nowhere(served: Served, route: str) -> None:
    for path in PATHS:
        for written in ways_to_write(path):
            refused(served.ask(route.format(written)), 400, 404)


@pytest.mark.usefixtures("nothing_is_read")
@pytest.mark.parametrize(
    "row",
    [
        "-1",
        "1.5",
        "1e3",
        "0x10",
        "9223372036854775808",
        "99999999999999999999",
        "９",
        "",
        "%20",
        "null",
        "true",
        "1;drop",
        "4611686018427387904",
        "123456789012",
    ],
)
def test_rows_that_are_none(served: Served, row: str) -> None:
    for route in ROUTES[:4]:
        path = route.format(row if row.isascii() else "%ef%bc%99")
        refused(served.ask(path), 400, 404)


@pytest.mark.usefixtures("nothing_is_read")
@pytest.mark.parametrize("uri", [*PATHS, "file:///etc/passwd", "s3://x/y", "http://localhost/", ""])
def test_names_that_the_snapshot_does_not_list(served: Served, uri: str) -> None:
    for asked in ({"uri": uri}, {"uri": uri, "crop": [0, 0, 1, 1]}, {"uri": [uri, uri]}):
        refused(served.post(asked), 400, 404)


@pytest.mark.usefixtures("nothing_is_read")
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("PUT", "/api/search"),
        ("DELETE", "/api/image/1"),
        ("PATCH", "/"),
        ("OPTIONS", "/api/stats"),
        ("TRACE", "/"),
        ("GET", "/api/search"),
        ("POST", "/api/stats"),
        ("GET", "/api"),
        ("GET", "/.git/config"),
        ("GET", "/static/"),
        ("GET", "/static/../api.py"),
        ("GET", "//"),
    ],
)
def test_methods_and_paths_that_there_are_not(served: Served, method: str, path: str) -> None:
    refused(served.ask(path, method=method), 404, 405)


# --- what is asked ------------------------------------------------------------------------------

NO_JSON = [
    b"",
    b"{",
    b"[]",
    b"null",
    b"1",
    b'"x"',
    b"{'id': 1}",
    b'{"id": NaN}',
    b'{"id": Infinity}',
    b"\xff\xfe",
    b'{"id": ' + b"9" * 5000 + b"}",
    b"[" * 50_000,
    b'{"a":' * 5000,
    b'{"id": 1} x',
    b'{"id": "\\ud800"}',
    b'{"where": "\\u0000", "id": 0}',
]


@pytest.mark.usefixtures("nothing_is_read")
@pytest.mark.parametrize("body", NO_JSON, ids=range(len(NO_JSON)))
def test_bodies_that_are_no_query(served: Served, body: bytes) -> None:
    refused(served.ask("/api/search", body, {"Content-Type": "application/json"}), 400)


FIELDS = [
    {},
    {"k": 5},
    {"id": []},
    {"id": None},
    {"id": True},
    {"id": -1},
    {"id": 1.5},
    {"id": {}},
    {"id": [[1]]},
    {"id": 2**70},
    {"id": 0, "k": 0},
    {"id": 0, "k": -5},
    {"id": 0, "k": 10**9},
    {"id": 0, "k": "many"},
    {"id": 0, "k": 1.5},
    {"id": 0, "k": [1]},
    {"id": 0, "where": 7},
    {"id": 0, "where": "x" * 5000},
    {"id": 0, "where": "nothing = 1"},
    {"id": 0, "where": "a ="},
    {"id": 0, "where": "uri = 'x'; drop table"},
    {"id": 0, "where": "(" * 300},
    {"id": 0, "where": ""},
    {"id": 0, "crop": "1,2"},
    {"id": 0, "crop": [0, 0, -1, 1]},
    {"id": 0, "crop": [0, 0, "1", 1]},
    {"id": 0, "crop": {"x": 1}},
    {"id": 0, "crop": [5000, 0, 10, 10]},
    {"id": 0, "crop": [[1]]},
    {"id": 0, "crop": "nan,0,1,1"},
    {"id": 0, "weights": {"low": 1}},
    {"id": 0, "weights": "low"},
    {"id": 0, "weights": {"low": "1"}},
    {"id": 0, "weights": []},
    {"id": 0, "unlike": "x"},
    {"id": 0, "unlike": [None]},
    {"id": 0, "unlike": SHA},
    {"id": 0, "unlike": 10**15},
    {"id": 0, "min_score": "high"},
    {"id": 0, "min_score": True},
    {"id": 0, "min_score": []},
    {"id": 0, "group_by": 3},
    {"id": 0, "group_by": "no such"},
    {"id": 0, "per_group": 2},
    {"id": 0, "diversify": 2},
    {"id": 0, "diversify": -0.1},
    {"id": 0, "diversify": "very"},
    {"id": 0, "exclude_self": "perhaps"},
    {"id": 0, "exclude_self": 1},
    {"id": 0, "format": "xml"},
    {"id": 0, "format": "../x"},
    {"id": 0, "together": "min"},
    {"id": 0, "nprobe": 5},
    {"id": 0, "__proto__": 1},
    {"picture": SHA},
    {"picture": "../" + SHA},
    {"picture": SHA.upper()},
    {"picture": 5},
    {"picture": "g" * 64},
    {"uri": 5},
    {"uri": ["x" * 5000]},
    {"uri": "\0"},
    {"id": list(range(50))},
    {"picture": [SHA] * 2, "id": list(range(40))},
    {"vectors": [[0.0]]},
    {"images": "/etc/passwd"},
    {"like": "/etc/passwd"},
    {"image": "/etc/passwd"},
]


@pytest.mark.usefixtures("nothing_is_read")
@pytest.mark.parametrize("asked", FIELDS, ids=range(len(FIELDS)))
def test_queries_that_cannot_be_asked(served: Served, asked: Any) -> None:
    refused(served.post(asked), 400, 404, 422)


@pytest.mark.usefixtures("nothing_is_read")
@pytest.mark.parametrize(
    "path",
    [
        "/api/browse?k=0",
        "/api/browse?k=1e9",
        "/api/browse?seed=-1",
        "/api/browse?order=up",
        "/api/browse?k=1&k=2",
        "/api/browse?path=/etc",
        "/api/browse?offset=-1",
        "/api/browse?where=x",
        "/api/browse?where=uri+%3D+%27%00%27",
        "/api/folders?under=%00",
        "/api/values",
        "/api/values?column=embedding",
        "/api/values?column=" + "x" * 5000,
        "/api/near-copies?threshold=x",
        "/api/near-copies?threshold=nan",
        "/api/near-copies?threshold=2",
        "/api/near-copies?seed=1",
        "/api/near-copies?where=nocolumn=1",
        "/api/duplicates?where=nocolumn=1",
        "/api/outliers?where=nocolumn=1",
        "/api/outliers?k=x",
        "/api/duplicates?offset=99999999999999999999",
        "/api/duplicates?order=random",
        "/api/image/0/thumbnail?side=100000",
        "/api/image/0/thumbnail?side=193",
        "/api/image/0/neighbours?k=0",
        "/api/image/0/neighbours?id=x",
        "/api/image/0/neighbours?format=html",
        f"/api/picture/{SHA}/thumbnail",
    ],
)
def test_parameters_that_mean_nothing(served: Served, path: str) -> None:
    refused(served.ask(path), 400, 404)


# --- pictures -----------------------------------------------------------------------------------


def bomb(width: int, height: int) -> bytes:
    """A small PNG that announces very many pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = zlib.compress(bytes(1 << 20))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        [chunk(b"IHDR", header), chunk(b"IDAT", data), chunk(b"IEND", b"")]
    )


PICTURES = {
    "empty": b"",
    "text": b"hello",
    "html": b"<html><script>alert(1)</script>",
    "zeros": bytes(1000),
    "svg": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
    "pdf": b"%PDF-1.4 x",
    "zip": b"PK\x03\x04",
    "bomb": bomb(60_000, 60_000),
    "wide": bomb(2**31 - 1, 1),
    "huge": bomb(2**31 - 1, 2**31 - 1),
    "none": bomb(0, 0),
    "cut": png(picture(1))[:80],
    "jpeg": b"\xff\xd8\xff\xe0" + bytes(50),
    "gif": b"GIF89a\xff\xff\xff\xff" + bytes(30),
    "bmp": b"BM" + struct.pack("<I", 2**32 - 1) * 20,
    "tiff": b"II*\x00\x08\x00\x00\x00\xff\xff" + bytes(100),
    "webp": b"RIFF\xff\xff\xff\xffWEBPVP8",
}


@pytest.mark.usefixtures("nothing_is_read")
@pytest.mark.parametrize("name", PICTURES)
def test_pictures_that_are_none_or_too_much(served: Served, name: str) -> None:
    refused(served.send([("image", PICTURES[name])]), 422)
    good = png(picture(3))
    refused(served.send([("image", good), ("unlike_image", PICTURES[name])]), 422)


def test_a_picture_of_many_pixels_is_decoded_within_limits(served: Served) -> None:
    out = io.BytesIO()
    Image.new("1", (12_000, 12_000)).save(out, "PNG")
    found = served.send([("image", out.getvalue())])
    refused(found, 422)
    assert "too_many_pixels" in found.json()["error"]


# The library lets go of a form's files that are not whole without closing them.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.usefixtures("nothing_is_read")
def test_forms_that_are_none(served: Served) -> None:
    good = png(picture(3))
    refused(served.send([("image", good)] * 40), 400)
    refused(served.send([("file", good)]), 400)
    refused(served.send([("image", good)], path="/etc/passwd"), 400)
    refused(served.send([("image", good)], where="x" * 20_000), 400)
    refused(served.send([("image", good)], **{f"f{n}": n for n in range(200)}), 400)
    refused(served.send([]), 400)
    body, kind = form([("image", good)], {})
    for broken in (body[:-30], body.replace(b"--", b"++"), b"", b"\r\n" * 1000):
        refused(served.ask("/api/search", broken, {"Content-Type": kind}), 400)
    for other in (
        "multipart/form-data",
        "multipart/form-data; boundary=",
        "text/plain",
        "application/x-www-form-urlencoded",
        "image/png",
        "",
    ):
        refused(served.ask("/api/search", body, {"Content-Type": other}), 400, 415)


# --- sizes, headers, time -----------------------------------------------------------------------


@pytest.mark.usefixtures("nothing_is_read")
def test_bodies_that_are_too_long(served: Served) -> None:
    kind = {"Content-Type": "application/json"}
    long = json.dumps({"id": 0, "where": "x" * 70_000}).encode()
    refused(served.ask("/api/search", long, kind), 413)
    announced = b"POST /api/search HTTP/1.1\r\nHost: localhost\r\nContent-Type: %s\r\n%s\r\n\r\n"
    for header in (b"Content-Length: 99999999999", b"Content-Length: 1048577"):
        back = served.raw(announced % (b"multipart/form-data; boundary=x", header))
        assert back.startswith(b"HTTP/1.1 413 ")
        assert b"is too long" in back
    chunked = announced % (b"multipart/form-data; boundary=x", b"Transfer-Encoding: chunked")
    field = b'--x\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n'
    parts = [field, *[bytes(1 << 18)] * 4]
    back = served.raw(chunked + b"".join(b"%x\r\n%s\r\n" % (len(one), one) for one in parts))
    assert back.startswith(b"HTTP/1.1 413 ")


def test_a_body_that_does_not_come(served: Served) -> None:
    head = (
        b"POST /api/search HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        b"Content-Length: 100\r\n\r\n{"
    )
    back = served.raw(head)
    assert back.startswith(b"HTTP/1.1 408 ")
    assert b"took more than 2 s" in back


@pytest.mark.usefixtures("nothing_is_read")
def test_urls_and_headers_that_are_too_long(served: Served) -> None:
    refused(served.ask("/api/browse?where=" + "x" * 9000), 414)
    refused(served.ask("/" + "x" * 9000), 414)
    refused(served.ask("/", headers={f"X-{n}": "1" for n in range(150)}), 431)
    refused(served.ask("/", headers={"X": "y" * 20_000}), 431)


@pytest.mark.usefixtures("nothing_is_read")
@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: localhost\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost localhost\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX: a\r\n\0: b\r\n\r\n",
        b"GET http://other/ HTTP/1.1\r\nHost: other\r\nConnection: close\r\n\r\n",
        b"GET /\x00 HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"POST /api/search HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: gzip\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"y" * 100_000 + b"\r\n\r\n",
    ],
    ids=range(13),
)
def test_bytes_that_are_no_request(served: Served, data: bytes) -> None:
    back = served.raw(data)
    assert back.startswith(b"HTTP/1.1 4") or b" 501 " in back[:20], back[:100]
    assert back.rpartition(b"\r\n\r\n")[2]


@pytest.mark.usefixtures("nothing_is_read")
@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "evil.example"}, 421),
        ({"Host": "evil.example:80"}, 421),
        ({"Host": "["}, 421),
        ({"Host": "10.0.0.1"}, 421),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://["}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
    ],
)
def test_other_sites_pages_get_nothing(
    served: Served, headers: dict[str, str], status: int
) -> None:
    refused(served.ask("/api/stats", headers=headers), status)


def test_a_link_of_another_site_may_lead_to_the_page(served: Served) -> None:
    link = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
    assert served.ask("/?k=5", headers={**link, "Sec-Fetch-Dest": "document"}).status == 200
    refused(served.ask("/", headers={**link, "Sec-Fetch-Dest": "iframe"}), 403)
    assert served.ask("/", headers={"Origin": f"http://127.0.0.1:{served.port}"}).status == 200


def test_every_answer_says_what_may_be_done_with_it(served: Served) -> None:
    for path in ("/", "/static/style.css", "/api/stats", "/nowhere", "/healthz"):
        headers = served.ask(path).headers
        policy = headers["content-security-policy"]
        assert "script-src 'self'" in policy
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert "server" not in headers


def test_more_requests_than_it_takes_are_told_to_come_again(indexed: tuple[Path, Path]) -> None:
    head = (
        b"POST /api/search HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        b"Content-Length: 100\r\n\r\n{"
    )
    with serving(indexed[0], limits=Limits(requests=2)) as served:
        with (
            socket.create_connection(("127.0.0.1", served.port)) as one,
            socket.create_connection(("127.0.0.1", served.port)) as two,
        ):
            one.sendall(head)
            two.sendall(head)
            deadline = time.monotonic() + 30
            while (found := served.ask("/api/stats")).status == 200 and time.monotonic() < deadline:
                time.sleep(0.01)
            refused(found, 503)
            assert found.headers["retry-after"] == "1"
            assert served.ask("/healthz").status == 200
            assert "under_way 2" in served.ask("/metrics").body.decode()
        while (found := served.ask("/api/stats")).status != 200 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert found.status == 200


# --- tokens -------------------------------------------------------------------------------------


def test_tokens(indexed: tuple[Path, Path]) -> None:
    with serving(indexed[0], token=TOKEN) as served:
        served.token = None
        for path in ("/", "/api/stats", "/static/style.css", "/metrics", "/api/image/0/original"):
            found = served.ask(path)
            refused(found, 401)
            assert found.headers["www-authenticate"] == "Bearer"
        for text in (
            "",
            "Bearer",
            "Bearer ",
            f"Bearer {TOKEN}x",
            f"Bearer {TOKEN[:-1]}",
            f"Basic {TOKEN}",
            TOKEN,
            f"{TOKEN} {TOKEN}",
            "Bearer \xff",
        ):
            refused(served.ask("/api/stats", headers={"Authorization": text}), 401)
        for cookie in ("", "x", f"lookalike={TOKEN}", "=;=;", "lookalike_00000000=1"):
            refused(served.ask("/api/stats", headers={"Cookie": cookie}), 401)
        refused(served.ask("/?token=wrong"), 401)
        refused(served.ask(f"/api/stats?token={TOKEN}"), 401)
        refused(served.post({"id": 0}), 401)
        assert served.ask("/healthz").status == 200
        found = served.ask("/api/stats", headers={"Authorization": f"bearer {TOKEN}"})
        assert found.status == 200
        found = served.ask(
            "/api/stats", headers={"Authorization": f"Bearer {TOKEN}", "Host": "nas"}
        )
        assert found.status == 200  # a name of the intranet
        entered = served.ask(f"/?token={TOKEN}&k=5&where=a+%3D+1")
        assert (entered.status, entered.headers["location"]) == (303, "./?k=5&where=a+%3D+1")
        cookie, _, rest = entered.headers["set-cookie"].partition(";")
        assert TOKEN not in cookie
        assert "httponly" in rest.lower()
        assert served.ask("/api/stats", headers={"Cookie": cookie}).status == 200


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "127.9.9.9"])
def test_this_machine_needs_no_token(host: str) -> None:
    check_access(host, None)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.2", "nas", "", "127.0.0.1.example"])
def test_other_machines_need_one(host: str) -> None:
    with pytest.raises(RequestError, match="needs a --token"):
        check_access(host, None)
    check_access(host, TOKEN)
    for token in ("short", "with space and more", "é" * 20, "", "x" * 300):
        with pytest.raises(RequestError, match="16 to 200 characters"):
            check_access(host, token)
