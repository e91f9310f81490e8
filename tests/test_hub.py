"""Models from the web, sent by a server on this machine, through tensorflow_hub and kagglehub."""

from __future__ import annotations

import email.message
import gzip
import hashlib
import io
import os
import shutil
import socket
import subprocess
import sys
import tarfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from urllib.parse import urlsplit

import pyarrow.fs as pafs
import pytest

from lookalike.errors import RequestError
from lookalike.models import downloads, hub, hub_process
from lookalike.models.handles import folder_fingerprint, resolve
from lookalike.store import storage
from tests.onnx_files import convolutions
from tests.web_server import Server, fails, line, pack, packed, running, write_model


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_model(tmp_path / "a model")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """TF-Hub's cache, which is not there yet."""
    monkeypatch.setenv("TFHUB_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.delenv("TFHUB_CACHE_DIR", raising=False)
    monkeypatch.delenv("TFHUB_MODEL_LOAD_FORMAT", raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1,localhost")
    with running() as found:
        yield found


@pytest.fixture
def here(tmp_path: Path, server: Server, cache: Path) -> Callable[[str], Path]:
    """Fetches as `hub` has it done, in this process: TensorFlow is loaded once for them all."""

    def fetch(handle: str) -> Path:
        scratch = tmp_path / "scratch"
        scratch.mkdir(exist_ok=True)
        return Path(hub_process.fetch(handle, str(scratch), timeout_s=0.3))

    return fetch


def named(handle: str) -> str:
    """What the cache calls its folder."""
    return hashlib.sha1(handle.encode()).hexdigest()


# --- tensorflow_hub ---------------------------------------------------------------------------


def test_a_tfhub_handle_with_redirects_a_dead_lock_and_half_a_folder(
    server: Server, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    """All of the way, in a process of its own, which alone loads TensorFlow."""
    server.sends("/file", pack(model, tmp_path / "m.tgz", "deeper").read_bytes())
    server.redirects("/kaggle", "/file?token=1", 308)
    handle = server.redirects("/google/model/1", server.address + "/kaggle", 303)
    place, told = cache / named(handle), list[str]()
    shutil.copytree(model, place)
    (place / "saved_model.pb").unlink()  # as cleaners of /tmp leave one
    dead = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    (cache / f"{place.name}.lock").write_text(f"{socket.gethostname()}.{dead}.download")
    (cache / f"{place.name}.download.tmp").mkdir()

    found = resolve(handle, tmp_path / "work", say=told.append)
    assert (found.folder, found.fingerprint) == (place / "deeper", folder_fingerprint(model))
    assert sorted(os.listdir(cache)) == [place.name, f"{place.name}.descriptor.txt"]
    assert server.asked[0] == "/google/model/1?tf-hub-format=compressed"
    assert [one.rpartition(": ")[2] for one in told] == ["it is fetched anew", "it is removed"]
    assert f"{place}, which TFHUB_CACHE_DIR holds for {handle}, has no saved_model.pb" in told[0]
    assert f"is of process {dead}, which is dead" in told[1]
    assert os.listdir(tmp_path / "work") == []

    before = len(server.asked)
    assert resolve(handle, tmp_path / "other", say=told.append) == found  # with no network
    assert (len(server.asked), len(told)) == (before, 2)

    (tmp_path / "file").touch()
    monkeypatch.setenv("TFHUB_CACHE_DIR", str(tmp_path / "file"))  # cannot hold anything
    again = resolve(handle, tmp_path / "work")
    assert again.folder == tmp_path / "work" / found.fingerprint
    assert os.listdir(tmp_path / "work") == [found.fingerprint]


def test_the_protocol_and_addresses_of_files(
    server: Server, model: Path, tmp_path: Path, here: Callable[[str], Path]
) -> None:
    data = pack(model, tmp_path / "m.tgz").read_bytes()
    for path, asked in {
        "/google/model/1?x=1#fragment": "/google/model/1?x=1&tf-hub-format=compressed",
        "/m.tar.gz?signature=abc": "/m.tar.gz?signature=abc",
    }.items():
        handle = server.sends(urlsplit(path).path, data) + path[len(urlsplit(path).path) :]
        assert folder_fingerprint(here(handle)) == folder_fingerprint(model)
        assert server.asked[-1] == asked


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:xz", "w:bz2"])
def test_an_archive_without_its_folders(
    server: Server, model: Path, here: Callable[[str], Path], mode: str
) -> None:
    files = [path for path in sorted(model.rglob("*")) if path.is_file()]
    data = packed(
        *((tarfile.TarInfo(str(path.relative_to(model))), path.read_bytes()) for path in files),
        mode=mode,
    )
    assert folder_fingerprint(here(server.sends("/m/1", data))) == folder_fingerprint(model)


def test_archives_that_are_refused(
    server: Server, model: Path, tmp_path: Path, here: Callable[[str], Path], cache: Path
) -> None:
    whole = pack(model, tmp_path / "m.tar", mode="w").read_bytes()
    damaged = bytearray(gzip.compress(whole))
    damaged[-8] ^= 255  # of the checksum
    linked = tarfile.TarInfo("assets/a")
    linked.type, linked.linkname = tarfile.SYMTYPE, "/etc/passwd"
    device = tarfile.TarInfo("assets/a")
    device.type = tarfile.CHRTYPE
    for data, message in {
        packed((tarfile.TarInfo("../../evil"), b"x")): "outside its folder: '../../evil'",
        packed((linked, b"")): "no plain file: 'assets/a'",
        packed((device, b"")): "no plain file",
        gzip.compress(whole)[:-200]: "the archive is truncated or damaged",
        bytes(damaged): "the archive is truncated or damaged",
        b"\n <!DOCTYPE html>": "that is a web page or XML message",
        b"": "it is empty",
        b"gone": "that is not a tar archive",
    }.items():
        handle = server.sends("/m/1", data)
        with pytest.raises(RequestError, match=message) as caught:
            here(handle)
        assert line(caught, handle).startswith(f"cannot use what {handle} sent as a model: ")
    server.answers["/silent"] = lambda request: time.sleep(1)
    for handle in (server.address + "/silent", "http://"):
        with pytest.raises(RequestError, match=r"within 0\.3 s|has no host") as caught:
            here(handle)
        line(caught, handle)
    clash = server.sends(
        "/m/1", packed((tarfile.TarInfo("a"), b"x"), (tarfile.TarInfo("a/b"), b""))
    )
    with pytest.raises(RequestError, match="tensorflow_hub cannot unpack") as caught:
        here(clash)
    line(caught, clash)
    assert os.listdir(cache) == []  # no lock, no half of a folder
    assert not (tmp_path / "evil").exists()


@pytest.mark.parametrize(
    ("gone", "missing"),
    [
        ("saved_model.pb", "saved_model.pb"),
        ("variables/variables.index", "variables/variables.index"),
        ("variables/variables.data-00001-of-00002", "variables/variables.data-00001-of-00002"),
    ],
)
def test_folders_of_the_cache_that_are_not_whole(
    model: Path, cache: Path, gone: str, missing: str
) -> None:
    handle, told = "https://tfhub.invalid/google/model/1", list[str]()
    place = cache / named(handle)
    shutil.copytree(model, place)
    first = place / "variables" / "variables.data-00000-of-00001"
    for number in (0, 1):
        shutil.copy(first, first.with_name(f"variables.data-{number:05d}-of-00002"))
    first.unlink()
    assert hub.cached(handle, told.append) == place
    assert not told
    (place / gone).unlink()
    assert hub.cached(handle, told.append) is None
    assert f"has no {missing}: it is fetched anew" in told[0]
    assert not place.exists()


@pytest.mark.parametrize("holder", ["{here}.{alive}.x", "elsewhere.1.x", ""])
def test_locks_that_are_not_ours_to_remove(cache: Path, holder: str) -> None:
    holder = holder.format(here=socket.gethostname(), alive=os.getpid())
    handle, told = "https://tfhub.invalid/google/model/1", list[str]()
    cache.mkdir()
    lock = cache / f"{named(handle)}.lock"
    lock.write_text(holder)
    assert hub.cached(handle, told.append) is None
    assert lock.exists()
    assert not told


@pytest.mark.parametrize("form", ["UNCOMPRESSED", "compressed"])
def test_the_load_format(
    server: Server, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    """A folder of this machine stands in for the bucket that the server names."""
    monkeypatch.setenv("TFHUB_MODEL_LOAD_FORMAT", form)
    handle = server.sends("/google/model/1", b"gs://bucket/a model", status=303)
    if form == "compressed":
        with pytest.raises(RequestError, match="FORMAT is one of AUTO, COMPRESSED, UNCOMPRESSED"):
            resolve(handle, tmp_path / "work")
        return
    local = pafs.SubTreeFileSystem(str(tmp_path), pafs.LocalFileSystem())
    monkeypatch.setattr(storage, "filesystem", lambda uri: (local, urlsplit(uri).path.lstrip("/")))
    assert resolve(handle, tmp_path / "work").fingerprint == folder_fingerprint(model)
    assert server.asked == ["/google/model/1?tf-hub-format=uncompressed"]


def test_progress_is_shown(
    server: Server,
    model: Path,
    tmp_path: Path,
    here: Callable[[str], Path],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TFHUB_DOWNLOAD_PROGRESS", "1")
    handle = server.sends("/google/model/1", pack(model, tmp_path / "m.tgz").read_bytes())
    here(handle)
    assert f"Downloading {handle}: " in capsys.readouterr().out


# --- downloads, in a process that does not need TensorFlow ------------------------------------


def test_downloads_that_fail_say_why(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "TIMEOUT_S", 0.3)
    work = tmp_path / "work"
    work.mkdir()
    for status, message in {
        403: "127.0.0.1 answers HTTP 403 Forbidden .it refuses",
        404: "HTTP 404 Not Found .nothing is at that address",
        500: "HTTP 500 Internal Server Error;",
    }.items():
        fails(server.sends(f"/{status}.onnx", b"<html>", status=status), work, message)
    fails(server.sends("/cut.onnx", b"half", announced=8), work, "ended after 4 of 8 bytes")
    fails(server.redirects("/loop.onnx", "/loop.onnx"), work, "redirect")
    fails(server.redirects("/f.onnx", "file:///etc/passwd"), work, "Redirection to url")

    def stalls(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.end_headers()
        request.wfile.write(b"some")
        request.wfile.flush()
        time.sleep(1)

    server.answers["/silent.onnx"] = lambda request: time.sleep(1)
    fails(server.address + "/silent.onnx", work, "127.0.0.1 did not answer within 0.3 s")
    server.answers["/stalls.onnx"] = stalls
    fails(server.address + "/stalls.onnx", work, "did not answer within 0.3 s")
    server.answers["/drop.onnx"] = lambda request: request.connection.close()
    fails(server.address + "/drop.onnx", work, "cannot download")


def test_a_server_that_trickles_meets_the_deadline(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    over = False

    def trickles(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.end_headers()
        while not over:
            try:
                request.wfile.write(b".")
            except OSError:  # it has gone away, as it should
                return
            time.sleep(0.05)

    server.answers["/m.onnx"] = trickles
    monkeypatch.setattr(hub, "DEADLINE_S", 2.0)
    (tmp_path / "work").mkdir()
    fails(server.address + "/m.onnx", tmp_path / "work", "it is not done within 2 s")
    over = True


def test_unreachable_hosts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for proxy in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(proxy, raising=False)
        monkeypatch.delenv(proxy.upper(), raising=False)
    work = tmp_path / "work"
    work.mkdir()
    fails("http://model.invalid/m.onnx", work, "the host model.invalid cannot be found")
    with socket.socket() as bound:  # bound and not listening: connections are refused
        bound.bind(("127.0.0.1", 0))
        fails(f"http://127.0.0.1:{bound.getsockname()[1]}/m.onnx", work, "refuses the connection")
    for handle in ("http:///m.onnx", "https://[::1/m.onnx", "http://127.0.0.1:port/m.onnx"):
        fails(handle, work, "cannot download")


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_followed(server: Server, tmp_path: Path, status: int) -> None:
    server.sends("/file", b"content")
    server.redirects("/two", "/file?token=1", status)
    handle = server.redirects("/one", server.address + "/two", status)
    downloads.fetch(handle, tmp_path / "file", timeout_s=5)
    assert (tmp_path / "file").read_bytes() == b"content"


def test_a_redirect_never_leaves_https() -> None:
    request = urllib.request.Request("https://example.org/model/1")
    with pytest.raises(ValueError, match="from https to an unprotected address"):
        downloads._Redirects().redirect_request(
            request, io.BytesIO(), 302, "Found", email.message.Message(), "http://example.org/m"
        )


def test_an_onnx_file_is_downloaded_as_it_is(server: Server, tmp_path: Path) -> None:
    data = convolutions(tmp_path / "net.onnx").read_bytes()
    address = server.sends("/repo/resolve/main/onnx/Net.ONNX", data) + "?signature=abc"
    found = resolve(address, tmp_path / "work", {"mean": 0.5})
    assert server.asked == ["/repo/resolve/main/onnx/Net.ONNX?signature=abc"]
    assert (found.folder / "model.onnx").read_bytes() == data
    local = resolve(str(tmp_path / "net.onnx"), tmp_path / "local", {"mean": 0.5})
    assert found.fingerprint == local.fingerprint
    with pytest.raises(RequestError, match=r"is no ONNX file, or is cut short or damaged"):
        resolve(server.sends("/page.onnx", b"<html>" * 99), tmp_path / "work")
