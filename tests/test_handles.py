from __future__ import annotations

import gzip
import os
import shutil
import tarfile
from pathlib import Path
from urllib.parse import urlsplit

import pyarrow.fs as pafs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lookalike.errors import RequestError
from lookalike.models.archives import ArchiveLimits, check, extract
from lookalike.models.handles import folder_fingerprint, model_files, resolve
from lookalike.store import storage
from tests.web_server import pack, packed, write_model


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_model(tmp_path / "a model")


FILES = [
    "assets/words/list.txt",
    "saved_model.pb",
    "variables/variables.data-00000-of-00001",
    "variables/variables.index",
]


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
            tar.add(
                path,
                inside + ("/" if inside == "." else "") + str(path.relative_to(model)),
                recursive=False,
            )
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
    for use in (extract, check):
        with pytest.raises(RequestError, match="unpacks to more than 5,000,000 bytes"):
            use(archive, tmp_path / "out", ArchiveLimits(max_bytes=5_000_000))
        with pytest.raises(RequestError, match="has more than 7 members"):
            use(archive, tmp_path / "out", ArchiveLimits(max_members=7))
    extract(archive, tmp_path / "out", ArchiveLimits(8 << 20, 8))
    check(archive, tmp_path / "plain", ArchiveLimits(8 << 20, 8))


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
