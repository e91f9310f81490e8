from __future__ import annotations

import gzip
import hashlib
import io
import os
import shutil
import socket
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import pyarrow.fs as pafs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lookalike.errors import RequestError
from lookalike.models import downloads
from lookalike.models.archives import ArchiveLimits, extract
from lookalike.models.handles import folder_fingerprint, model_files, resolve
from lookalike.store import storage


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """The files of a SavedModel, as far as resolving looks at them."""
    folder = tmp_path / "a model"
    for name, data in {
        "saved_model.pb": b"graph",
        "fingerprint.pb": b"print",
        "keras_metadata.pb": b"keras",
        "README.md": b"read me",
        "variables/variables.index": b"index",
        "variables/variables.data-00000-of-00001": bytes(range(256)) * 400,
        "variables/.DS_Store": b"litter",
        "assets/words/list.txt": b"a\nb\n",
        "assets.extra/notes": b"more",
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


FILES = [
    "assets/words/list.txt",
    "saved_model.pb",
    "variables/variables.data-00000-of-00001",
    "variables/variables.index",
]


def pack(folder: Path, archive: Path, inside: str = ".", mode: str = "w:gz") -> Path:
    with tarfile.open(archive, mode) as tar:  # type: ignore[call-overload]
        tar.add(folder, inside)
    return archive


def packed(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:gz") as tar:
        for info, content in members:
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return data.getvalue()


def one_line(caught: pytest.ExceptionInfo[RequestError]) -> str:
    text = str(caught.value)
    assert "\n" not in text
    assert not text.endswith(".")
    return text


# --- folders and fingerprints -----------------------------------------------------------------


def test_a_folder_is_used_where_it_is(model: Path, tmp_path: Path) -> None:
    found = resolve(str(model), tmp_path / "work")
    assert found.folder == model
    assert found.fingerprint == folder_fingerprint(model)
    assert (found.handle, found.builtin) == (str(model), False)
    assert not (tmp_path / "work").exists()


def test_relative_home_and_file_handles(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    for handle in ("a model", "~/a model", model.as_uri(), f"{model}/"):
        assert resolve(handle, tmp_path / "work").folder == model


def test_model_files_are_those_that_loading_needs(model: Path) -> None:
    assert model_files(model) == FILES
    (model / "tfhub_module.pb").write_bytes(b"\x08\x03")
    assert model_files(model) == sorted([*FILES, "tfhub_module.pb"])


def test_fingerprint_covers_these_files_and_no_others(model: Path) -> None:
    known = folder_fingerprint(model)
    assert len(known) == 64
    for name in ("fingerprint.pb", "README.md", "keras_metadata.pb", "variables/.DS_Store"):
        (model / name).unlink()
    assert folder_fingerprint(model) == known
    seen = {known}
    for name in FILES:
        data = (model / name).read_bytes()
        (model / name).write_bytes(data[:-1] + b"?")
        seen.add(folder_fingerprint(model))
        (model / name).write_bytes(data)
    (model / "assets" / "words" / "list.txt").rename(model / "assets" / "list.txt")
    seen.add(folder_fingerprint(model))
    assert len(seen) == len(FILES) + 2


def test_fingerprint_follows_links_as_model_caches_have_them(model: Path, tmp_path: Path) -> None:
    linked = tmp_path / "linked"
    for name in FILES:
        (linked / name).parent.mkdir(parents=True, exist_ok=True)
        (linked / name).symlink_to(model / name)
    assert folder_fingerprint(linked) == folder_fingerprint(model)


def test_one_folder_further_down_is_found(model: Path, tmp_path: Path) -> None:
    outer = tmp_path / "outer"
    shutil.copytree(model, outer / "inner")
    (outer / "notes.txt").touch()
    assert resolve(str(outer), tmp_path / "work").folder == outer / "inner"
    shutil.copytree(model, outer / "second")
    with pytest.raises(RequestError, match=r"holds several models \(inner, second\)"):
        resolve(str(outer), tmp_path / "work")


def test_folders_and_files_that_are_no_models(model: Path, tmp_path: Path) -> None:
    work = tmp_path / "work"
    (tmp_path / "k").mkdir()
    (tmp_path / "k" / "model.keras").touch()
    (tmp_path / "zip").write_bytes(b"PK\x03\x04 and so on")
    (tmp_path / "empty.tar.gz").touch()
    (tmp_path / "noise.tgz").write_bytes(b"noise" * 300)
    for handle, message in {
        str(tmp_path / "k"): r"has no saved_model.pb and no .onnx file \(it holds model.keras\)",
        str(tmp_path / "nowhere"): "there is no model at .*nowhere",
        "": "there is no model at ''",
        str(model / "saved_model.pb"): "is a file; give the folder that holds it",
        str(tmp_path / "zip"): "that is a zip file, not a tar archive; unpack it",
        str(tmp_path / "empty.tar.gz"): "not a tar archive .it is empty",
        str(tmp_path / "noise.tgz"): "noise.tgz as a model: that is not a tar archive",
    }.items():
        with pytest.raises(RequestError, match=message) as caught:
            resolve(handle, work)
        one_line(caught)
    assert not work.exists() or not list(work.iterdir())


# --- archives ---------------------------------------------------------------------------------


@pytest.mark.parametrize("inside", [".", "", "mobilenet/"])
@pytest.mark.parametrize("mode", ["w", "w:gz", "w:xz", "w:bz2"])
def test_an_archive_is_the_folder_it_was_made_of(
    model: Path, tmp_path: Path, inside: str, mode: str
) -> None:
    archive = tmp_path / "model.tar.gz"
    with tarfile.open(archive, mode) as tar:  # type: ignore[call-overload]
        for path in sorted(model.rglob("*")):  # without an entry for the folder itself
            tar.add(path, inside + ("/" if inside == "." else "") + str(path.relative_to(model)),
                    recursive=False)  # fmt: skip
    found = resolve(str(archive), tmp_path / "work")
    assert found.fingerprint == folder_fingerprint(model)
    assert found.folder == tmp_path / "work" / found.fingerprint
    assert model_files(found.folder) == FILES
    again = resolve(str(archive), tmp_path / "work")
    assert again == found
    assert os.listdir(tmp_path / "work") == [found.fingerprint]


def test_an_unpacked_model_that_was_damaged_is_unpacked_again(model: Path, tmp_path: Path) -> None:
    archive = pack(model, tmp_path / "m.tgz")
    found = resolve(str(archive), tmp_path / "work")
    (found.folder / "saved_model.pb").write_bytes(b"")
    assert folder_fingerprint(resolve(str(archive), tmp_path / "work").folder) == found.fingerprint


def link(name: str, kind: bytes) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, "/etc/passwd"
    return info


@pytest.mark.parametrize(
    ("member", "message"),
    [
        (tarfile.TarInfo("../outside"), "outside its folder: '../outside'"),
        (tarfile.TarInfo("a/../../outside"), "outside its folder"),
        (tarfile.TarInfo("/tmp/outside"), "outside its folder: '/tmp/outside'"),
        (tarfile.TarInfo("..\\outside"), "outside its folder"),
        (link("assets/a", tarfile.SYMTYPE), "no plain file: 'assets/a'"),
        (link("assets/a", tarfile.LNKTYPE), "no plain file"),
        (link("assets/a", tarfile.FIFOTYPE), "no plain file"),
        (link("assets/a", tarfile.CHRTYPE), "no plain file"),
        (tarfile.TarInfo("saved_model.pb/below"), "truncated or damaged"),
        (tarfile.TarInfo("x" * 300), "truncated or damaged"),
    ],
)
def test_members_that_are_refused(tmp_path: Path, member: tarfile.TarInfo, message: str) -> None:
    archive = tmp_path / "m.tar.gz"
    content = b"" if member.type in (tarfile.SYMTYPE, tarfile.LNKTYPE) else b"x"
    archive.write_bytes(packed((tarfile.TarInfo("saved_model.pb"), b"graph"), (member, content)))
    with pytest.raises(RequestError, match=message) as caught:
        resolve(str(archive), tmp_path / "deep" / "work")
    assert one_line(caught).startswith(f"cannot use the archive {archive} as a model: ")
    assert not list((tmp_path / "deep" / "work").iterdir())
    assert sorted(os.listdir(tmp_path)) == ["deep", "m.tar.gz"]


def test_archives_that_unpack_to_too_much(tmp_path: Path) -> None:
    archive = tmp_path / "bomb.tar.gz"
    members = [(tarfile.TarInfo(f"assets/{i}"), bytes(1 << 20)) for i in range(8)]
    archive.write_bytes(packed(*members))
    assert archive.stat().st_size < 1 << 16
    (tmp_path / "out").mkdir()
    with pytest.raises(RequestError, match="unpacks to more than 5,000,000 bytes"):
        extract(archive, tmp_path / "out", ArchiveLimits(max_bytes=5_000_000))
    with pytest.raises(RequestError, match="has more than 7 members"):
        extract(archive, tmp_path / "out", ArchiveLimits(max_members=7))
    extract(archive, tmp_path / "out", ArchiveLimits(8 << 20, 8))


@pytest.mark.parametrize("share", [0.1, 0.5, 0.95])
def test_truncated_archives(model: Path, tmp_path: Path, share: float) -> None:
    archive = pack(model, tmp_path / "m.tar.gz")
    data = archive.read_bytes()
    archive.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(RequestError, match="the archive is truncated or damaged") as caught:
        resolve(str(archive), tmp_path / "work")
    one_line(caught)
    assert not list((tmp_path / "work").iterdir())


@given(st.binary(max_size=2000), st.sampled_from([b"", b"\x1f\x8b\x08\0", b"BZh9", b"\xfd7zXZ\0"]))
def test_any_bytes_are_refused_with_a_reason(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, magic: bytes
) -> None:
    folder = tmp_path_factory.mktemp("any")
    (folder / "m.tgz").write_bytes(magic + data)
    with pytest.raises(RequestError):
        resolve(str(folder / "m.tgz"), folder / "work")


def test_a_damaged_byte_in_a_gzip_archive_is_noticed(model: Path, tmp_path: Path) -> None:
    archive = pack(model, tmp_path / "m.tar", mode="w")
    data = bytearray(gzip.compress(archive.read_bytes()))
    data[len(data) // 2] ^= 255
    (tmp_path / "m.tar.gz").write_bytes(data)
    with pytest.raises(RequestError, match="truncated or damaged"):
        resolve(str(tmp_path / "m.tar.gz"), tmp_path / "work")


# --- https:// ---------------------------------------------------------------------------------

Answer = Callable[[BaseHTTPRequestHandler], None]


class Server:
    """A web server on this machine; `answers` maps a path to what happens."""

    def __init__(self) -> None:
        self.answers: dict[str, Answer] = {}
        self.asked: list[str] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked.append(self.path)
                outer.answers[self.path.partition("?")[0]](self)

            def log_message(self, *_: object) -> None:
                """Print nothing."""

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.http.server_port}"

    def sends(self, path: str, data: bytes, announced: int | None = None, status: int = 200) -> str:
        def answer(request: BaseHTTPRequestHandler) -> None:
            request.send_response(status)
            request.send_header(
                "Content-Length", str(len(data) if announced is None else announced)
            )
            request.end_headers()
            request.wfile.write(data)

        self.answers[path] = answer
        return self.address + path

    def redirects(self, path: str, target: str, status: int = 302) -> str:
        def answer(request: BaseHTTPRequestHandler) -> None:
            request.send_response(status)
            request.send_header("Location", target)
            request.send_header("Content-Length", "0")
            request.end_headers()

        self.answers[path] = answer
        return self.address + path


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.delenv("TFHUB_CACHE_DIR", raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1,localhost")
    found = Server()
    thread = threading.Thread(target=found.http.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    yield found
    found.http.shutdown()
    found.http.server_close()


def fails(handle: str, work: Path, message: str) -> None:
    with pytest.raises(RequestError, match=message) as caught:
        resolve(handle, work)
    text = one_line(caught)
    assert handle in text
    assert "kaggle models instances versions download" in text
    assert "builtin:photo" in text
    assert not list(work.iterdir())


def test_a_download_speaks_the_tfhub_protocol(server: Server, model: Path, tmp_path: Path) -> None:
    data = pack(model, tmp_path / "m.tgz").read_bytes()
    handle = server.sends("/google/model/1", data)
    found = resolve(handle, tmp_path / "work")
    assert found.fingerprint == folder_fingerprint(model)
    assert server.asked == ["/google/model/1?tf-hub-format=compressed"]
    assert os.listdir(tmp_path / "work") == [found.fingerprint]
    resolve(handle + "?x=1&y=#fragment", tmp_path / "work")
    assert server.asked[1:] == ["/google/model/1?x=1&y=&tf-hub-format=compressed"]
    resolve(server.sends("/m.tar.gz", data) + "?signature=abc", tmp_path / "work")
    assert server.asked[2:] == ["/m.tar.gz?signature=abc"]


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_followed(server: Server, model: Path, tmp_path: Path, status: int) -> None:
    server.sends("/file", pack(model, tmp_path / "m.tgz").read_bytes())
    server.redirects("/kaggle", "/file?token=1", status)
    handle = server.redirects("/hub/1", server.address + "/kaggle", status)
    assert resolve(handle, tmp_path / "work").fingerprint == folder_fingerprint(model)


def test_a_redirect_never_leaves_https() -> None:
    import email.message
    import urllib.request

    request = urllib.request.Request("https://example.org/model/1")
    with pytest.raises(RequestError, match="from https to an unprotected address"):
        downloads._Redirects().redirect_request(
            request, io.BytesIO(), 302, "Found", email.message.Message(), "http://example.org/m"
        )


def test_downloads_that_fail_say_why(
    server: Server, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(downloads, "TIMEOUT_S", 0.3)
    work = tmp_path / "work"
    work.mkdir()
    data = pack(model, tmp_path / "m.tgz").read_bytes()
    page = b"\n <!DOCTYPE html><html>sign in</html>"
    for status, message in {
        403: "127.0.0.1 answers HTTP 403 Forbidden .it refuses",
        404: "HTTP 404 Not Found .nothing is at that address",
        500: "HTTP 500 Internal Server Error;",
    }.items():
        fails(server.sends(f"/{status}", page, status=status), work, message)
    fails(server.sends("/page", page), work, "that is a web page or XML message")
    fails(server.sends("/empty", b""), work, "it is empty")
    fails(server.sends("/text", b"gone"), work, "that is not a tar archive")
    fails(
        server.sends("/cut", data[:-200], announced=len(data)), work, "the connection ended after"
    )
    fails(server.sends("/short", data[:-200]), work, "the archive is truncated or damaged")
    fails(server.redirects("/loop", "/loop"), work, "redirect")
    fails(server.redirects("/file", "file:///etc/passwd"), work, "Redirection to url")
    evil = packed((tarfile.TarInfo("../../evil"), b"x"))
    fails(server.sends("/evil", evil), work, "outside its folder")
    other = packed((tarfile.TarInfo("model.h5"), b"x"))
    fails(
        server.sends("/other", other),
        work,
        "has no saved_model.pb and no .onnx file .it holds model.h5",
    )

    server.answers["/silent"] = lambda request: time.sleep(1)
    fails(server.address + "/silent", work, "did not answer within 0.3 s")
    server.answers["/drop"] = lambda request: request.connection.close()
    fails(server.address + "/drop", work, "cannot download")


def test_unreachable_hosts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TFHUB_CACHE_DIR", raising=False)
    for proxy in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(proxy, raising=False)
        monkeypatch.delenv(proxy.upper(), raising=False)
    work = tmp_path / "work"
    work.mkdir()
    fails("http://model.invalid/m/1", work, "the host model.invalid cannot be found")
    with socket.socket() as bound:  # bound and not listening: connections are refused
        bound.bind(("127.0.0.1", 0))
        fails(f"http://127.0.0.1:{bound.getsockname()[1]}/m", work, "refuses the connection")
    for handle in ("http://", "http:///m", "https://[::1/m", "http://127.0.0.1:port/m"):
        fails(handle, work, "cannot download")


def test_the_cache_of_tfhub_is_used_without_a_network(
    server: Server, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TFHUB_CACHE_DIR", str(tmp_path / "cache"))
    handle = "https://tfhub.invalid/google/model/1"
    place = tmp_path / "cache" / hashlib.sha1(handle.encode()).hexdigest()
    shutil.copytree(model, place)
    found = resolve(handle, tmp_path / "work")
    assert (found.folder, found.fingerprint) == (place, folder_fingerprint(model))
    (place / "saved_model.pb").unlink()
    with pytest.raises(RequestError, match=r"TFHUB_CACHE_DIR holds for .* has no saved_model"):
        resolve(handle, tmp_path / "work")


def test_a_download_is_left_in_the_cache(
    server: Server, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"
    monkeypatch.setenv("TFHUB_CACHE_DIR", str(cache))
    handle = server.sends("/m/1", pack(model, tmp_path / "m.tgz", "deeper").read_bytes())
    found = resolve(handle, tmp_path / "work")
    assert os.listdir(cache) == [hashlib.sha1(handle.encode()).hexdigest()]
    assert found.folder == cache / os.listdir(cache)[0]
    assert found.fingerprint == folder_fingerprint(found.folder) == folder_fingerprint(model)
    resolve(handle, tmp_path / "other")
    assert len(server.asked) == 1

    (tmp_path / "file").touch()
    monkeypatch.setenv("TFHUB_CACHE_DIR", str(tmp_path / "file"))  # cannot hold anything
    again = resolve(handle, tmp_path / "work")
    assert (
        again.folder
        == tmp_path / "work" / again.fingerprint
        == tmp_path / "work" / found.fingerprint
    )


# --- other handles ----------------------------------------------------------------------------


@pytest.mark.parametrize("as_archive", [False, True])
def test_remote_storage(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, as_archive: bool
) -> None:
    """A folder of this machine stands in for a bucket, behind the calls that any bucket gets."""
    source = pack(model, tmp_path / "m.tgz") if as_archive else model
    local = pafs.SubTreeFileSystem(str(tmp_path), pafs.LocalFileSystem())
    asked: list[str] = []

    def filesystem(uri: str) -> tuple[pafs.FileSystem, str]:
        asked.append(uri)
        return local, urlsplit(uri).path.lstrip("/")

    monkeypatch.setattr(storage, "filesystem", filesystem)
    found = resolve(f"gs://bucket/{source.name}", tmp_path / "work")
    assert asked == [f"gs://bucket/{source.name}"]
    assert found.fingerprint == folder_fingerprint(model)
    assert os.listdir(tmp_path / "work") == [found.fingerprint]
    with pytest.raises(RequestError, match="cannot copy the model gs://bucket/nothing: ") as caught:
        resolve("gs://bucket/nothing", tmp_path / "work")
    one_line(caught)
    assert os.listdir(tmp_path / "work") == [found.fingerprint]


def test_storage_that_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="cannot copy the model nosuch://bucket/m: ") as caught:
        resolve("nosuch://bucket/m", tmp_path / "work")
    one_line(caught)
    assert not list((tmp_path / "work").iterdir())


def test_unknown_builtins_are_listed(tmp_path: Path) -> None:
    for handle in ("builtin:sift", "builtin:"):
        with pytest.raises(RequestError, match="features are: builtin:photo, builtin:c") as caught:
            resolve(handle, tmp_path)
        assert one_line(caught).startswith(f"there is no {handle};")


def test_a_builtin_is_known_without_its_model(tmp_path: Path) -> None:
    found = resolve("builtin:color-texture", tmp_path / "work")
    assert found.builtin
    assert found.folder == tmp_path / "work" / found.fingerprint
    assert resolve("builtin:photo", tmp_path).fingerprint != found.fingerprint
    assert not os.listdir(tmp_path)


def test_an_onnx_file_is_downloaded_as_it_is(server: Server, tmp_path: Path) -> None:
    from tests.onnx_files import convolutions

    data = convolutions(tmp_path / "net.onnx").read_bytes()
    address = server.sends("/repo/resolve/main/onnx/Net.ONNX", data) + "?signature=abc"
    found = resolve(address, tmp_path / "work", {"mean": 0.5})
    assert (found.folder / "model.onnx").read_bytes() == data
    local = resolve(str(tmp_path / "net.onnx"), tmp_path / "local", {"mean": 0.5})
    assert found.fingerprint == local.fingerprint
    with pytest.raises(RequestError, match=r"is no ONNX file, or is cut short or damaged"):
        resolve(server.sends("/page.onnx", b"<html>" * 99), tmp_path / "work")
