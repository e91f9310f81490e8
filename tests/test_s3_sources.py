"""Sources on S3: every key is listed and read to the byte, with few requests, or it is said why."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Lock
from urllib.parse import parse_qs, quote_plus, unquote, urlsplit

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lookalike.errors import RequestError, UnreachableError
from lookalike.pipelines.cli import main
from lookalike.sources.contents import Contents
from lookalike.sources.kinds import open_source
from lookalike.sources.looking_up import look_up, look_up_all
from lookalike.sources.vector_tables import list_tables
from lookalike.store import object_errors, object_requests, s3_client, storage
from lookalike.store.bucket import BucketStore
from lookalike.store.s3 import list_objects
from lookalike.store.s3_file import S3File
from lookalike.store.s3_uri import parse
from tests.conftest import picture
from tests.documented import ROOT
from tests.s3_server import BUCKET, KEYS, Answer, faulty_proxy, s3_server, store_uri, stub_server
from tests.tar_files import pack

pytest.importorskip("botocore")

ODD = [
    "/lead.png",
    "//two.png",
    "/",
    "p//a.png",
    "p/./a.png",
    "p/../a.png",
    "../up.png",
    "./here.png",
    "p/a.png",
    "p/a b+c.png",
    "p/100%.png",
    "p/100%25.png",
    "p/%41.png",
    "p/q?x=1#y.png",
    "p/é日.png",
    "p/e\u0301.png",
    "p/tab\tx.png",
    "p/<&\"'>.png",
    "p/[1]*.png",
    "p/back\\slash",
    "p/trailing/",
    "x" * 1024,
    "é" * 512,
    "p/.hidden/a.png",
    "p/ a .png",
]


@pytest.fixture(autouse=True)
def _credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    with s3_server(tmp_path_factory.mktemp("s3"), moto=True) as port:
        yield port


@pytest.fixture
def put(server: int, request: pytest.FixtureRequest) -> Callable[..., str]:
    """Puts objects into a bucket of the test's own; gives the bucket's URI."""
    bucket = f"t{abs(hash(request.node.nodeid))}"
    uri = store_uri(server, "").replace(f"s3://{BUCKET}/", f"s3://{bucket}/")
    client = s3_client.open_client(parse(uri))
    client.create_bucket(Bucket=bucket)

    def put(objects: dict[str, bytes]) -> str:
        for key, data in objects.items():
            client.put_object(Bucket=bucket, Key=key, Body=data)
        return uri

    return put


def at(uri: str, path: str) -> str:
    """A path in the bucket of a URI."""
    name = parse(uri)
    return f"s3://{name.bucket}/{path}{name.options}"


def keys(spec: str) -> list[str]:
    files = list(open_source(spec).files(pytest.fail))
    assert not any(file.problem for file in files)
    return sorted(parse(file.uri).key for file in files)


# --- keys -------------------------------------------------------------------------------------


def test_every_key_is_listed_once_and_read_to_the_byte(put: Callable[..., str]) -> None:
    uri = put({key: key.encode() for key in ODD} | {"marker/": b"", "empty.png": b""})
    files = list(open_source(uri).files(pytest.fail))
    assert sorted(parse(file.uri).key for file in files) == sorted([*ODD, "empty.png"])
    for file in files:
        data = b"" if "empty" in file.uri else parse(file.uri).key.encode()
        assert file.bytes == len(data)
        assert storage.read_bytes(file.uri) == data
        assert storage.read_bytes(file.uri, 3) == data[:3]
        assert look_up(file.uri) == file
        with storage.open_binary(file.uri) as one, storage.open_binary(file.uri, True) as other:
            assert one.read() == other.read() == data


def test_folders_and_globs_of_odd_keys(put: Callable[..., str]) -> None:
    uri = put(dict.fromkeys([*ODD, "pp/a.png", "p"], b"1"))
    below = sorted(key for key in ODD if key.startswith("p/"))
    assert keys(at(uri, "p/")) == below
    assert keys(at(uri, "p")) == ["p"]  # an object of that name
    assert keys(at(uri, "p//")) == ["p//a.png"]
    assert keys(at(uri, "/")) == sorted(key for key in ODD if key.startswith("/"))
    assert keys(at(uri, "p*/a.png")) == ["p/a.png", "pp/a.png"]
    assert keys(at(uri, "p/*/a.png")) == ["p//a.png"]
    assert keys(at(uri, "p/.*/a.png")) == ["p/../a.png", "p/./a.png", "p/.hidden/a.png"]
    assert keys(at(uri, "p/%5B1]*")) == ["p/[1]*.png"]
    assert keys(at(uri, "p/[%]41.png".replace("%", "%25"))) == ["p/%41.png"]
    assert keys(at(uri, "p/100%*")) == ["p/100%.png", "p/100%25.png"]
    with pytest.raises(RequestError, match="no such file or folder"):
        open_source(at(uri, "absent/"))


def entries(*keys: str) -> str:
    return "".join(
        f"<Contents><Key>{quote_plus(key)}</Key><LastModified>2025-01-01T00:00:00.123Z"
        f"</LastModified><ETag>1</ETag><Size>{len(key.encode())}</Size></Contents>"
        for key in keys
    )


def page(keys: list[str], token: str | None = None, truncated: bool | None = None) -> bytes:
    """One page of a listing, its keys encoded as Amazon does."""
    more = bool(token) if truncated is None else truncated
    next_one = f"<NextContinuationToken>{token}</NextContinuationToken>" if token else ""
    return (
        '<?xml version="1.0"?><ListBucketResult><EncodingType>url</EncodingType>'
        f"<IsTruncated>{str(more).lower()}</IsTruncated>{next_one}{entries(*keys)}"
        "</ListBucketResult>"
    ).encode()


def test_keys_with_line_ends_and_controls() -> None:
    """No server here takes them; Amazon does."""
    odd = ["a\nb.png", "a\r\nb.png", "\n", "a\x01b.png", " .png", "a\x7f.png", "p/\n/a.png"]

    def answer(method: str, path: str) -> tuple[int, bytes]:
        if "list-type" in path:
            assert "encoding-type=url" in path
            return 200, page(odd)
        key = unquote(urlsplit(path).path).removeprefix("/b/")
        return (200, key.encode()) if key in odd else (404, b"")

    with stub_server(answer) as port:
        uri = f"s3://b?endpoint_override=127.0.0.1:{port}&scheme=http&region=us-east-1"
        files = list(open_source(uri).files(pytest.fail))
        assert [parse(file.uri).key for file in files] == odd
        assert [storage.read_bytes(file.uri).decode() for file in files] == odd
        assert {file.version for file in files} == {"1735689600000000000"}  # in whole seconds
        assert look_up(files[0].uri) == files[0]


@pytest.mark.parametrize("circle", [1, 2, 7, 30])
@pytest.mark.parametrize("filled", [True, False], ids=["keys", "empty pages"])
@pytest.mark.parametrize("before", [0, 5])
def test_a_listing_that_goes_in_circles_ends(circle: int, filled: bool, before: int) -> None:
    asked = 0

    def answer(method: str, path: str) -> tuple[int, bytes]:
        nonlocal asked
        asked += 1
        token = int(parse_qs(urlsplit(path).query).get("continuation-token", ["0"])[0])
        following = token + 1 if token + 1 < before + circle else before
        return 200, page([f"p/{token}"] if filled else [], str(following))

    with stub_server(answer) as port:
        uri = f"s3://b/p/?endpoint_override=127.0.0.1:{port}&scheme=http&region=us-east-1"
        with pytest.raises(UnreachableError, match=r"^s3://b/p/: .*goes in circles") as raised:
            list(list_objects(uri))
        assert raised.value.where == "s3://b/p/"
        assert asked <= 4 * (before + circle) + 4
        if not filled:
            with pytest.raises(UnreachableError, match="goes in circles"):
                open_source(uri)
            return
        *_, lost = open_source(uri).files()
        assert lost.uri.startswith("s3://b/p?")
        assert lost.problem.startswith("folder not readable: s3://b/p/: cannot list it")


def test_listings_that_cannot_go_on_or_hardly_do() -> None:
    """Empty pages may come between others; a page that says there is more must say where."""
    pages = {"": page(["a"], "1"), "1": page([], "2"), "2": page([], "3"), "3": page(["b"])}

    def answer(method: str, path: str) -> tuple[int, bytes]:
        return 200, pages[parse_qs(urlsplit(path).query).get("continuation-token", [""])[0]]

    with stub_server(answer) as port:
        uri = f"s3://b?endpoint_override=127.0.0.1:{port}&scheme=http&region=us-east-1"
        assert [one.key for one in list_objects(uri)] == ["a", "b"]
        pages["3"] = page(["b"], truncated=True)
        with pytest.raises(UnreachableError, match="after 4 pages there is more, and not said"):
            list(list_objects(uri))


# --- manifests --------------------------------------------------------------------------------

LINES = [
    "a.png",
    "./a.png",
    "sub/../a.png",
    "../up.png",
    "/up.png",
    "../../up.png",
    "s3://BUCKET/up.png",
    "s3://BUCKET/d/../up.png",
    "s3://BUCKET/d//two.png",
    ".//two.png",
    "s3://BUCKET/d/../odd.png",
    "a b.png",
    "a%20b.png",
    "absent.png",
    "//lead.png",
]
NAMED = [
    "d/a.png",
    "d/a.png",
    "d/a.png",
    "up.png",
    "up.png",
    "up.png",
    "up.png",
    "up.png",
    "d//two.png",
    "d//two.png",
    "d/../odd.png",
    "d/a b.png",
    "d/a b.png",
    "d/absent.png",
    "/lead.png",
]


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_manifests_beside_options(put: Callable[..., str], suffix: str) -> None:
    """Each line names one object, by one name, whatever way it is written."""
    uri = put(dict.fromkeys(set(NAMED) - {"d/absent.png"}, b"1"))
    bucket = parse(uri).bucket
    lines = [line.replace("BUCKET", bucket) for line in LINES]
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"uri": lines, "n": range(len(lines))}), sink)
    rows = "".join(f"{line},{number}\n" for number, line in enumerate(lines))
    content = sink.getvalue().to_pybytes() if suffix != ".csv" else f"uri,n\n{rows}".encode()
    put({f"d/m{suffix}": content})
    source = open_source(at(uri, f"d/m{suffix}"))
    assert source.kind == "manifest"
    assert source.metadata == pa.schema([("n", pa.int64())])
    files = list(source.files(pytest.fail))
    assert [parse(file.uri).key for file in files] == NAMED
    assert {(parse(file.uri).key, file.problem) for file in files if file.problem} == {
        ("d/absent.png", "no such file (absent)")
    }
    assert len({file.uri for file in files}) == len(set(NAMED))
    assert [file.metadata["n"] for file in files] == list(range(len(lines)))


def test_a_manifest_here_with_objects_there(put: Callable[..., str], tmp_path: Path) -> None:
    uri = put({"a b.png": b"1"})
    lines = [at(uri, "a b.png"), at(uri, "a%20b.png"), at(uri, "no.png"), at(uri, "%E9.png")]
    (tmp_path / "m.csv").write_text("\n".join(["uri", *lines]))
    one, same, absent, wrong = open_source(str(tmp_path / "m.csv")).files()
    assert one == same == look_up(at(uri, "a b.png"))
    assert absent.problem == "no such file (absent)"
    assert "UTF-8, this is none" in wrong.problem
    (listed,) = open_source(uri).files()
    assert (listed.uri, listed.bytes, listed.version) == (one.uri, one.bytes, one.version)


def test_very_many_names_are_looked_up_as_few_are(put: Callable[..., str]) -> None:
    plain = [f"many/{i:03d}.png" for i in range(50)]
    uri = put({key: key.encode() for key in [*ODD, *plain]} | {"marker/": b"", "p/a.b/c": b"1"})
    names = [
        *ODD,
        *plain,
        "p/a.b/c",
        "p/absent.png",
        "marker/",
        "many",
        "p/a.b/./c",
        "none/.hidden",
    ]
    uris = [parse(uri).named(key).uri for key in names] + [at(uri, "%E9.png"), at(uri, "p/a.png")]
    uris = (uris * 9)[: 256 + len(uris)]
    assert list(look_up_all(uris)) == [look_up(one) for one in uris]


def test_very_many_requests_are_on_their_way_at_once() -> None:
    lock, now, most = Lock(), [0], [0]

    def answer(method: str, path: str) -> tuple[int, bytes]:
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        time.sleep(0.2)  # so that a loaded machine has started all of them
        with lock:
            now[0] -= 1
        return 200, b"12345"

    with stub_server(answer) as port:
        found = list(look_up_all([store_uri(port, f"{i}.png") for i in range(300)]))
    assert {getattr(one, "bytes", one) for one in found} == {5}
    assert most[0] >= 48  # of 64


@pytest.mark.parametrize("names", [("bytes", "version"), ("size", "etag")])
def test_a_manifest_that_tells_sizes_and_versions_is_not_looked_up(
    tmp_path: Path, names: tuple[str, str]
) -> None:
    asked: list[str] = []

    def answer(method: str, path: str) -> tuple[int, bytes]:
        asked.append(f"{method} {urlsplit(path).path}")
        return 200, b"123"

    with stub_server(answer) as port:
        told, untold = (store_uri(port, name) for name in ("told.png", "untold.png"))
        (tmp_path / "here.png").write_bytes(b"1234567")
        rows = [(told, "70", "v1"), (untold, "", "v2"), (untold, "5", ""), ("here.png", "70", "v")]
        (tmp_path / "m.csv").write_text("\n".join(map(",".join, [("uri", *names), *rows])))
        files = list(open_source(str(tmp_path / "m.csv")).files(pytest.fail))
    assert [file.bytes for file in files] == [70, 3, 3, 7]
    assert files[0].version == "v1"
    assert asked == [f"HEAD /{BUCKET}/untold.png"] * 2
    kept = names[0] if names[0] == "size" else f"manifest_{names[0]}"
    assert files[0].metadata[kept] == 70


# --- containers, and files read in pieces -----------------------------------------------------


@pytest.mark.parametrize("compressed", [False, True])
def test_shards_and_tables(put: Callable[..., str], tmp_path: Path, compressed: bool) -> None:
    images = [os.urandom(90_000) for _ in range(4)]
    uri = put({"s//1.tar": pack([(f"{n}.png", data) for n, data in enumerate(images)])})
    sink = pa.BufferOutputStream()
    pq.write_table(
        pa.table({"image": images, "n": range(4)}),
        sink,
        row_group_size=2,
        compression="snappy" if compressed else "none",
    )
    put({"t/../1.parquet": sink.getvalue().to_pybytes()})
    for spec in ("s//1.tar", "s//*.tar", "t/../1.parquet", "t/.*/*.parquet"):
        files = list(open_source(at(uri, spec)).files(pytest.fail))
        with Contents() as contents:
            assert [contents.read(file) for file in files] == images, spec
    vectors = pa.table({"uri": ["a", "b"], "embedding": [[1.0, 2.0], [3.0, 4.0]]})
    sink = pa.BufferOutputStream()
    pq.write_table(vectors, sink)
    put({"v//1.parquet": sink.getvalue().to_pybytes(), "v//notes.txt": b"1"})
    [table] = list_tables([at(uri, "v/")], lambda line: None)
    assert table.rows == 2


def test_an_object_as_a_file(put: Callable[..., str]) -> None:
    data = os.urandom(300_000)
    uri = at(put({"x": data}), "x")
    for from_end in (False, True):
        with S3File(uri, from_end) as file:
            assert (file.read(5), file.tell(), file.seekable()) == (data[:5], 5, True)
            assert file.seek(-10, os.SEEK_END) == len(data) - 10
            assert file.read(99) == data[-10:]
            assert file.read(1) == b""
            assert file.seek(len(data) + 5) == len(data) + 5
            assert file.read(1) == b""
            file.seek(100_000)
            assert file.read(100_000) == data[100_000:200_000]
            file.seek(-50_000, os.SEEK_CUR)
            assert file.read() == data[150_000:]
            with pytest.raises(ValueError, match="no byte -1"):
                file.seek(-1)
    with S3File(uri) as file:
        put({"x": data[::-1]})
        assert file.read(100) == data[:100]  # it is here already
        file.seek(200_000)
        with pytest.raises(OSError, match="/x: it changed while it was read"):
            file.read(100)


def test_copies_here(put: Callable[..., str], tmp_path: Path) -> None:
    """As of a model's folder; a key that no file could have is refused, not written elsewhere."""
    uri = put(
        {"m/v 1/a": b"1", "m/v 1/sub/b": b"22", "m/v 1/": b"", "m/v 2": b"3", "bad/../x": b""}
    )
    folder = storage.copy_to_local(at(uri, "m/v 1/"), tmp_path)
    assert folder == tmp_path / "v 1"
    assert {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    } == {"a": b"1", "sub/b": b"22"}
    assert storage.copy_to_local(at(uri, "m/v%202"), tmp_path).read_bytes() == b"3"
    with pytest.raises(RequestError, match=r"/bad/../x: its key is no path that a file could have"):
        storage.copy_to_local(at(uri, "bad"), tmp_path)
    with pytest.raises(FileNotFoundError, match="/m/v: no such object or folder"):
        storage.copy_to_local(at(uri, "m/v"), tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad", "v 1", "v 2"]


# --- requests ---------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_night_asks_once_for_each_object(server: int, tmp_path: Path) -> None:
    """And the second night, nothing but the listing."""
    client = s3_client.open_client(parse(store_uri(server, "")))
    for number in range(12):
        path = tmp_path / f"{number}.png"
        picture(number, (40 + number, 40)).save(path)
        client.put_object(Bucket=BUCKET, Key=f"night/{number}.png", Body=path.read_bytes())
    time.sleep(3)  # what was written within two seconds of a listing is read once more, to be sure
    config = tmp_path / "config.yaml"
    config.write_text(
        "features: [{name: low, handle: 'builtin:color-texture'}]\nrunner: {workers: 1}\n"
    )
    with faulty_proxy(server) as (port, faults):
        asked = [
            "index",
            "--config",
            str(config),
            "--images",
            store_uri(port, "night/"),
            "--store",
            str(tmp_path / "store"),
        ]
        assert main(asked) == 0
        seen = [request.split("?")[0] for request in faults.seen]
        shown = len(list((tmp_path / "store").glob("snapshots/*/report.html"))) * 12  # its tiles
        gets = [f"GET /{BUCKET}/night/{number}.png" for number in range(12)]
        assert set(gets) <= set(seen)
        assert sum(request in gets for request in seen) <= 12 + shown
        assert not [request for request in seen if request.startswith("HEAD")]
        assert seen.count(f"GET /{BUCKET}") <= 4
        faults.plan()
        assert main(asked) == 0
        assert len(faults.seen) <= 4
        assert {request.split("?")[0] for request in faults.seen} == {f"GET /{BUCKET}"}


def test_listing_and_reading_take_a_request_for_each_page_and_object(server: int) -> None:
    client = s3_client.open_client(parse(store_uri(server, "")))
    for number in range(20):
        client.put_object(Bucket=BUCKET, Key=f"pages/{number % 5}/{number}", Body=b"x")
    with faulty_proxy(server) as (port, faults):
        files = list(open_source(store_uri(port, "pages/")).files())
        assert len(files) == 20
        assert len(faults.seen) == 2  # what it is, and one page for all folders
        faults.plan()
        with Contents() as contents:
            assert [contents.read(file) for file in files[:20]] == [b"x"] * 20
        assert [request.split()[0] for request in faults.seen] == ["GET"] * 20


@pytest.mark.parametrize(
    "kind", ["500 before", "cut before", "cut after", "half an answer", "500 after"]
)
def test_one_fault_is_not_noticed(server: int, kind: str) -> None:
    client = s3_client.open_client(parse(store_uri(server, "")))
    data = os.urandom(5000)
    client.put_object(Bucket=BUCKET, Key="once", Body=data)
    with faulty_proxy(server) as (port, faults):
        uri = store_uri(port, "once")
        for call in (
            lambda: storage.read_bytes(uri),
            lambda: storage.open_binary(uri).read(),
            lambda: data if storage.remote_info(uri)[0] == "file" else b"",
            lambda: data if list(open_source(store_uri(port, "on*")).files()) else b"",
        ):
            faults.plan(kind)
            assert call() == data
            assert faults.failed == 1


# In a process of its own: what others left in this one's threads, a fork would wait for.
_FORKS = """
import sys
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import get_context
from lookalike.store import s3_client, storage
from lookalike.store.s3_uri import parse
names = sys.argv[1:]
expected = [str(number).encode() * 1000 for number in range(len(names))]
with ThreadPoolExecutor(8) as threads:
    assert list(threads.map(storage.read_bytes, names)) == expected
    with get_context("fork").Pool(2) as processes:
        assert processes.map(storage.read_bytes, names) == expected
    assert list(threads.map(storage.read_bytes, names)) == expected
one = s3_client.open_client(parse(names[0]))
assert one is s3_client.open_client(parse(names[3]))  # one client a process
"""


def test_threads_and_forks(put: Callable[..., str]) -> None:
    uri = put({str(number): str(number).encode() * 1000 for number in range(20)})
    names = [at(uri, str(number)) for number in range(20)]
    done = subprocess.run(
        [sys.executable, "-c", _FORKS, *names],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr


# --- what went wrong --------------------------------------------------------------------------


def fails(status: int, code: str) -> Answer:
    told = f"<Code>{code}</Code><Message>Said by the server.</Message>"
    body = f"<Error>{told}</Error>".encode() if code else b""
    return lambda method, path: (status, body)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3_client, "_ATTEMPTS", 2)
    monkeypatch.setattr(object_errors, "_PAUSE_S", 0.01)
    monkeypatch.setattr(object_errors, "_TRIES", 2)
    monkeypatch.setitem(object_requests._RETRY, "max_retries", 0)
    s3_client._made.cache_clear()


FAILURES = [
    (500, "InternalError", UnreachableError),
    (500, "", UnreachableError),
    (502, "", UnreachableError),
    (503, "SlowDown", UnreachableError),
    (503, "ServiceUnavailable", UnreachableError),
    (504, "", UnreachableError),
    (429, "TooManyRequests", UnreachableError),
    (403, "AccessDenied", RequestError),
    (403, "InvalidAccessKeyId", RequestError),
    (403, "SignatureDoesNotMatch", RequestError),
    (403, "RequestTimeTooSkewed", RequestError),
    (401, "Unauthorized", RequestError),
    (400, "ExpiredToken", RequestError),
    (400, "InvalidToken", RequestError),
    (404, "NoSuchBucket", RequestError),
]


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(("status", "code", "expected"), FAILURES)
def test_one_cause_is_one_error_for_sources_and_stores(
    status: int, code: str, expected: type[Exception]
) -> None:
    with stub_server(fails(status, code)) as port:
        for name in ("p/", "p/a.png", "m.csv", "p/*.png", "s.tar"):
            with pytest.raises(expected, match=r"^s3://bucket/") as source:
                open_source(store_uri(port, name))
            assert str(status) in str(source.value) or code == "NoSuchBucket"
            assert "\n" not in str(source.value)
        with pytest.raises(expected, match=r"^s3://bucket/p: cannot read CURRENT") as store:
            BucketStore(store_uri(port, "p")).read("CURRENT")
        assert "\n" not in str(store.value)
        for call in (
            lambda objects: objects.folders("snapshots"),
            lambda objects: objects.put("x", b"1"),
            lambda objects: objects.put_if_absent("x", b"1"),
        ):
            with pytest.raises(expected):
                call(BucketStore(store_uri(port, "p")))
        if expected is RequestError:
            with pytest.raises(expected, match=r"check (its name|the credentials)"):
                open_source(store_uri(port, "p/"))


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("host", ["127.0.0.1:9", "nowhere.invalid:9000"])
def test_a_server_that_is_not_there(host: str, tmp_path: Path) -> None:
    where = f"?endpoint_override={host}&scheme=http&region=us-east-1"
    began = time.monotonic()
    with pytest.raises(UnreachableError, match=rf"^s3://b/p: .*no answer from http://{host}"):
        open_source(f"s3://b/p{where}")
    with pytest.raises(UnreachableError, match=r"^s3://b/p: "):
        BucketStore(f"s3://b/p{where}").read("CURRENT")
    (tmp_path / "m.csv").write_text("uri\n" + f"s3://b/a{where}\n" * 3)
    with pytest.raises(UnreachableError, match=r"^s3://b/a: "):
        list(open_source(str(tmp_path / "m.csv")).files())
    assert time.monotonic() - began < 40


@pytest.mark.usefixtures("impatient")
def test_a_server_that_goes_away_amid_a_manifest(tmp_path: Path) -> None:
    answered = 0

    def answer(method: str, path: str) -> tuple[int, bytes]:
        nonlocal answered
        answered += 1
        return (200, b"1") if "good" in path else (503, b"")

    def found(lines: list[str]) -> list[str]:
        (tmp_path / "m.csv").write_text("\n".join(["uri", *lines]))
        return [file.problem for file in open_source(str(tmp_path / "m.csv")).files()]

    with stub_server(answer) as port:
        good, bad = store_uri(port, "good.png"), store_uri(port, "bad.png")
        first, second, third = found([bad, good, bad])
        assert (second, first) == ("", third)
        assert first.startswith("s3://bucket/bad.png: cannot look at it: ")
        with pytest.raises(UnreachableError):
            found([good, *[bad] * 20, good])
        with pytest.raises(UnreachableError):
            found([bad, bad])


@pytest.mark.usefixtures("impatient")
def test_an_object_that_may_not_be_read_is_one_row() -> None:
    """What is about one object ends no run; the folder above may be listed all the same."""

    def answer(method: str, path: str) -> tuple[int, bytes]:
        if "list-type" in path:
            there = parse_qs(urlsplit(path).query)["prefix"] == ["p/"]
            return 200, page(["p/a.png"] if there else [])
        return fails(403, "AccessDenied")(method, path)

    with stub_server(answer) as port:
        [file] = open_source(store_uri(port, "p")).files()
        assert (parse(file.uri).key, file.problem) == ("p/a.png", "")
        with pytest.raises(OSError, match="AccessDenied: Said by the server"):
            storage.read_bytes(file.uri)
        assert "AccessDenied: Said by the server" in look_up(file.uri).problem


@pytest.mark.usefixtures("impatient")
def test_credentials_and_where_they_come_from(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """From the environment, a profile, the name; without any, what is public can be read."""

    def answer(method: str, path: str) -> tuple[int, bytes]:
        return 200, page(["a.png"])

    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))

    def access_key(uri: str) -> str | None:
        found = s3_client.open_client(parse(uri))._request_signer._credentials
        return found.access_key if found else None

    with stub_server(answer) as port:
        uri = store_uri(port, "")
        assert access_key(uri) == KEYS["AWS_ACCESS_KEY_ID"]
        assert access_key(uri.replace("s3://", "s3://mine:x%2Fy@")) == "mine"
        for name in KEYS:
            monkeypatch.delenv(name)
        assert access_key(uri) is None
        assert [parse(file.uri).key for file in open_source(uri).files()] == ["a.png"]
        (tmp_path / "credentials").write_text(
            "[other]\naws_access_key_id = theirs\naws_secret_access_key = x\n"
        )
        monkeypatch.setenv("AWS_PROFILE", "other")
        assert access_key(uri) == "theirs"
        monkeypatch.setenv("AWS_PROFILE", "nobody")
        with pytest.raises(RequestError, match=r"profile \(nobody\) could not be found"):
            open_source(uri)
        monkeypatch.delenv("AWS_PROFILE")
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
        (tmp_path / "credentials").unlink()
        assert [parse(file.uri).key for file in open_source("s3://bucket").files()] == ["a.png"]
    no_credentials = pytest.raises(RequestError, match=r"403 AccessDenied: .*; no credentials were")
    with stub_server(fails(403, "AccessDenied")) as port, no_credentials:
        open_source(store_uri(port, "p/"))


@pytest.mark.usefixtures("impatient")
def test_the_status_of_a_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """1 where trying again may help, 2 where it does not; one line says which."""
    picture(1).save(tmp_path / "a.png")
    for answer, status, words in (
        (fails(503, "SlowDown"), 1, "503|SlowDown"),
        (fails(403, "InvalidAccessKeyId"), 2, "check the credentials"),
        (fails(404, "NoSuchBucket"), 2, "no .*bucket"),
    ):
        with stub_server(answer) as port:
            for images, store in (
                (store_uri(port, "p"), str(tmp_path / "store")),
                (str(tmp_path / "a.png"), store_uri(port, "store")),
            ):
                asked = ["--images", images, "--store", store, "--cache", str(tmp_path / "cache")]
                assert main(["index", *asked]) == status
                [line] = capsys.readouterr().err.splitlines()
                assert re.search(words, line), line
