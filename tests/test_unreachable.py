"""What cannot be read for a night: nothing leaves an answer, nothing is embedded again."""

from __future__ import annotations

import http.client
import io
import os
import shutil
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lookalike.pipelines.cli import main
from lookalike.search.searcher import Searcher
from lookalike.store import snapshot
from lookalike.store.ledger import LedgerRow, read_ledger
from lookalike.store.objects import open_store
from tests.conftest import picture
from tests.privileges import permissions_hold
from tests.s3_server import BUCKET, KEYS, faulty_proxy, s3_server, store_uri

CONFIG = """
features: [{name: low, handle: 'builtin:color-texture'}]
runner: {workers: 1}
"""
LISTED = ("embedded", "unchanged", "duplicate", "rejected", "ignored")


@dataclass
class Nights:
    """A store that is brought up to date from night to night."""

    root: Path
    sources: list[str] = field(default_factory=list)
    config: str = CONFIG

    @property
    def store(self) -> Path:
        return self.root / "store"

    def run(self, *flags: str) -> int:
        (self.root / "config.yaml").write_text(self.config)
        images = [flag for source in self.sources for flag in ("--images", source)]
        return main(
            [
                "index",
                "--config",
                str(self.root / "config.yaml"),
                "--store",
                str(self.store),
                *images,
                *flags,
            ]
        )

    def night(self, *flags: str) -> dict[str, Any]:
        """One night that publishes, or changes nothing; its manifest, with sums that hold."""
        before = (
            snapshot.read_manifest(open_store(self.store))
            if snapshot.current(open_store(self.store))
            else None
        )
        assert self.run(*flags) == 0
        manifest = snapshot.read_manifest(open_store(self.store))
        counts, changes, rows = manifest["counts"], manifest["changes"], self.ledger()
        assert counts["listed"] == sum(counts[name] for name in LISTED)
        for name in (*LISTED, "removed", "unknown"):
            assert counts[name] == sum(row.status == name for row in rows.values()), name
        if before and before["name"] != manifest["name"]:
            known = before["counts"]["listed"] + before["counts"]["unknown"]
            known *= before["metric"] == manifest["metric"]  # else it is made anew
            parts = ("unchanged", "changed", "removed", "unknown")
            assert changes["previous"] == known == sum(changes[name] for name in parts)
        assert list(snapshot.verify(open_store(self.store))) == []
        return manifest

    def ledger(self) -> dict[str, LedgerRow]:
        manifest = snapshot.read_manifest(open_store(self.store))
        lines = snapshot.files_of(manifest, "ledger")
        return {row.uri: row for line in lines for row in read_ledger(self.store / line["path"])}

    def answers(self) -> dict[str, list[str]]:
        """All names that searches give, with their duplicates."""
        asked = self.root / "asked.png"
        picture(0).save(asked)
        found = Searcher.open(self.store).search(images=[str(asked)], k=100)[0]
        return {one.uri: sorted(one.duplicates) for one in found}

    def away_for_a_night(self, trouble: Callable[[], Any], count: int) -> dict[str, LedgerRow]:
        """Three nights, the second with a trouble; the unknown rows of that one."""
        first, answers = self.night(), self.answers()
        assert first["counts"]["vectors"] == len(answers)
        rows = self.ledger()
        with trouble():
            second = self.night()
        unknown = {uri: row for uri, row in self.ledger().items() if row.status == "unknown"}
        assert second["counts"]["unknown"] == count == len(unknown)
        assert second["counts"]["removed"] == second["counts"]["embedded"] == 0
        assert self.answers() == answers
        for uri, row in unknown.items():
            assert row.reason
            assert row.detail
            old = rows[uri]
            assert (row.id, row.content_sha256, row.bytes, row.version, row.metadata_hash) == (
                old.id,
                old.content_sha256,
                old.bytes,
                old.version,
                old.metadata_hash,
            )
        third = self.night()
        assert third["counts"]["unknown"] == third["counts"]["embedded"] == 0
        assert third["counts"]["removed"] == third["changes"]["added"] == 0
        assert self.answers() == answers
        as_first = {uri: (row.id, row.detail) for uri, row in rows.items()}
        assert {uri: (row.id, row.detail) for uri, row in self.ledger().items()} == as_first
        return unknown


@contextmanager
def closed(path: Path) -> Iterator[None]:
    mode = path.stat().st_mode
    path.chmod(0)
    try:
        with permissions_hold():
            yield
    finally:
        path.chmod(mode)


@contextmanager
def moved_away(path: Path) -> Iterator[None]:
    path.rename(path.with_name("elsewhere"))
    yield
    path.with_name("elsewhere").rename(path)


@contextmanager
def linked_away(path: Path, away: Path, target: Path) -> Iterator[None]:
    """The folder is moved to another disk, a link left in its place, and the disk not mounted."""
    path.rename(away)
    path.symlink_to(target)
    yield
    path.unlink()
    away.rename(path)


@pytest.fixture
def nights(tmp_path: Path, pictures: Callable[..., Path]) -> Nights:
    """Six pictures in a folder, four below it."""
    folder = pictures(6, "p")
    pictures(4, "p/sub", 100)
    return Nights(tmp_path, [str(folder)])


def png(seed: int) -> bytes:
    output = io.BytesIO()
    picture(seed).save(output, "PNG")
    return output.getvalue()


def write_tar(path: Path, count: int) -> None:
    with tarfile.open(path, "w") as tar:
        for number in range(count):
            member = tarfile.TarInfo(f"{number:03d}.png")
            member.size = len(data := png(500 + number))
            tar.addfile(member, io.BytesIO(data))


def test_a_folder(nights: Nights, capsys: pytest.CaptureFixture[str]) -> None:
    sub = nights.root / "p/sub"
    shutil.copy(sub / "000.jpg", nights.root / "p/zzz copy.jpg")  # a duplicate of one below
    shutil.copy(nights.root / "p/000.jpg", sub / "copy.jpg")  # and one that points out
    (sub / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 no picture")
    (sub / "notes.json").write_text("{}")
    nights.config += "publish: {max_unreadable_share: 0.6}\n"
    (sub / os.fsdecode(b"\xff.jpg")).write_bytes((sub / "001.jpg").read_bytes() + b"\0")
    unknown = nights.away_for_a_night(lambda: closed(sub), 8)
    assert {row.reason for row in unknown.values()} == {"unlisted"}
    assert {row.detail for row in unknown.values()} == {
        f"{sub}: folder not readable: Permission denied"
    }
    assert "; 8 unknown (not readable now, kept as they were)\n" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("pattern", "target"),
    [
        ("", "unmounted"),
        ("", "no-such-disk/sub"),
        ("/*/000.jpg", "unmounted"),
        *(
            pytest.param(pattern, "unmounted", marks=pytest.mark.slow)
            for pattern in ("/*/*.jpg", "/**/*.jpg", "/su*", "/sub/*")
        ),
    ],
)
def test_a_folder_that_became_a_link_which_leads_nowhere(
    nights: Nights, pattern: str, target: str
) -> None:
    nights.sources = [str(nights.root / "p") + pattern]
    if pattern:
        nights.sources.append(str(nights.root / "p/00?.jpg"))
    nights.config += "publish: {max_unreadable_share: 0.6}\n"
    sub, root = nights.root / "p/sub", nights.root
    unknown = nights.away_for_a_night(
        lambda: linked_away(sub, root / "moved", root / target), 1 if "000" in pattern else 4
    )
    assert {row.reason for row in unknown.values()} == {"unlisted"}
    [detail] = {row.detail for row in unknown.values()}
    assert detail.lower().startswith(f"{sub}: no such f".lower())


@pytest.mark.slow
def test_what_happens_meanwhile(nights: Nights, capsys: pytest.CaptureFixture[str]) -> None:
    """Equal contents come and go beside names that are unknown; a second such night stands."""
    sub, folder = nights.root / "p/sub", nights.root / "p"
    nights.night()
    with closed(sub):
        (folder / "000.jpg").unlink()
        shutil.copy(folder / "001.jpg", folder / "0.jpg")  # a smaller name of the same content
        with open(folder / "a.jpg", "wb") as new:
            new.write((nights.root / "p/002.jpg").read_bytes())
        second = nights.night()
        assert second["counts"]["unknown"] == 4
        assert second["counts"]["removed"] == 1
        assert second["counts"]["embedded"] == 0
        answers = nights.answers()
        assert str(folder / "000.jpg") not in answers
        assert str(folder / "001.jpg") in answers[str(folder / "0.jpg")]
        capsys.readouterr()
        assert nights.night()["name"] == second["name"]
        assert "it stands; 4 unknown" in capsys.readouterr().err
    (sub / "000.jpg").unlink()
    third = nights.night()
    assert third["counts"]["removed"] == 1
    assert third["counts"]["unknown"] == third["counts"]["embedded"] == 0


@pytest.mark.slow
def test_new_names_of_contents_that_are_unknown(nights: Nights) -> None:
    sub, folder = nights.root / "p/sub", nights.root / "p"
    data = (sub / "000.jpg").read_bytes()
    nights.night()
    with closed(sub):
        (folder / "0.jpg").write_bytes(data)  # sorts before the unknown name, and is its main one
        second = nights.night()
        assert second["counts"]["embedded"] == 0
        row = nights.ledger()[str(sub / "000.jpg")]
        assert (row.status, row.known_status, row.known_detail) == (
            "unknown",
            "duplicate",
            str(folder / "0.jpg"),
        )
        assert nights.answers()[str(folder / "0.jpg")] == [str(sub / "000.jpg")]
    third = nights.night()
    assert third["counts"]["embedded"] == third["counts"]["removed"] == 0
    assert nights.ledger()[str(sub / "000.jpg")].detail == str(folder / "0.jpg")


@pytest.mark.slow
@pytest.mark.parametrize("pattern", ["*/*.jpg", "*/0??.jpg", "**/*.jpg", "su*"])
def test_a_glob(nights: Nights, pattern: str) -> None:
    nights.sources = [str(nights.root / "p" / pattern), str(nights.root / "p")]
    nights.sources = nights.sources[:1]
    nights.config += "publish: {max_unreadable_share: 1}\n"
    nights.away_for_a_night(lambda: closed(nights.root / "p/sub"), 4)


@pytest.mark.parametrize("kind", ["glob", "named"])
def test_a_tar(nights: Nights, kind: str) -> None:
    (nights.root / "t").mkdir()
    write_tar(nights.root / "t/a.tar", 4)
    nights.sources.append(str(nights.root / "t" / ("*.tar" if kind == "glob" else "a.tar")))
    unknown = nights.away_for_a_night(lambda: closed(nights.root / "t/a.tar"), 4)
    assert set(unknown) == {f"{nights.root}/t/a.tar#{n:03d}.png" for n in range(4)}
    assert all("Permission denied" in row.detail for row in unknown.values())


@pytest.mark.slow
def test_a_tar_that_is_copied_halfway(nights: Nights) -> None:
    (nights.root / "t").mkdir()
    tar = nights.root / "t/a.tar"
    write_tar(tar, 4)
    nights.sources.append(str(tar))
    with tarfile.open(tar) as file:
        third = file.getmembers()[2]

    @contextmanager
    def halfway() -> Iterator[None]:
        whole = tar.read_bytes()
        tar.write_bytes(whole[: third.offset_data + third.size // 2])
        yield
        tar.write_bytes(whole)

    unknown = nights.away_for_a_night(halfway, 2)
    assert set(unknown) == {f"{tar}#{n:03d}.png" for n in (2, 3)}
    assert f"of {third.size:,} bytes are in the tar" in unknown[f"{tar}#002.png"].detail


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["glob", "named"])
def test_a_table_of_images(nights: Nights, kind: str) -> None:
    (nights.root / "t").mkdir()
    table = nights.root / "t/a.parquet"
    pq.write_table(pa.table({"image": [png(n) for n in range(500, 504)], "n": range(4)}), table)
    nights.sources.append(str(nights.root / "t" / ("*.parquet" if kind == "glob" else "a.parquet")))
    unknown = nights.away_for_a_night(lambda: closed(table), 4)
    assert set(unknown) == {f"{table}#{n}" for n in range(4)}


@pytest.mark.slow
def test_a_manifest_and_what_it_names(nights: Nights) -> None:
    manifest = nights.root / "m.csv"
    manifest.write_text("uri,label\n" + "".join(f"p/sub/{n:03d}.jpg,cat\n" for n in range(4)))
    nights.sources = [str(nights.root / "p/0*.jpg"), str(manifest)]
    unknown = nights.away_for_a_night(lambda: closed(manifest), 4)
    assert {row.reason for row in unknown.values()} == {"unlisted"}
    with closed(nights.root / "p/sub"):  # the files cannot be looked at
        assert nights.night()["counts"]["unknown"] == 4
    with moved_away(nights.root / "p/sub"):  # their folder is not mounted
        assert nights.night()["counts"]["unknown"] == 4
    assert nights.night()["counts"]["unchanged"] == 10
    (nights.root / "p/sub/000.jpg").unlink()  # it is gone, and its folder is there
    counts = nights.night()["counts"]
    assert (counts["unknown"], counts["rejected"], counts["unchanged"]) == (0, 1, 9)


@pytest.mark.slow
def test_a_source_that_is_not_mounted(nights: Nights, capsys: pytest.CaptureFixture[str]) -> None:
    other = nights.root / "other"
    shutil.copytree(nights.root / "p/sub", other)
    for path in other.iterdir():
        path.write_bytes(path.read_bytes() + b"\0")
    nights.sources.append(str(other))
    nights.away_for_a_night(lambda: moved_away(other), 4)
    nights.away_for_a_night(lambda: closed(other), 4)
    nights.sources = [str(other / "*.jpg"), str(nights.root / "p")]
    nights.away_for_a_night(lambda: moved_away(other), 4)
    nights.sources[0] = str(nights.root / "othr")
    capsys.readouterr()
    assert nights.run() == 2  # of no run before: a wrong name
    assert "othr: no such file or folder" in capsys.readouterr().err


def test_too_much_of_it_is_not_published(
    nights: Nights, capsys: pytest.CaptureFixture[str]
) -> None:
    name = nights.night()["name"]
    nights.config += "publish: {max_unreadable_share: 0.39}\n"
    with closed(nights.root / "p/sub"):
        assert nights.run() == 3
        said = capsys.readouterr().err.splitlines()[-1]
        assert "4 of 10 files cannot be reached (40.0%), publish.max_unreadable_share is" in said
        assert f"39.0%; for example {nights.root}/p/sub: folder not readable: " in said
        nights.config = nights.config.replace("0.39", "0.4")
        nights.night()
    nights.config = nights.config.replace("0.4", "0.5")
    with closed(nights.root / "p"):  # the whole of it
        assert nights.run() == 3
    assert snapshot.read_manifest(open_store(nights.store))["parent"] == name


def test_a_first_night(nights: Nights, capsys: pytest.CaptureFixture[str]) -> None:
    with closed(nights.root / "p"):
        assert nights.run() == 1
    assert "p: folder not readable: Permission denied" in capsys.readouterr().err
    assert not nights.store.exists()
    with closed(nights.root / "p/sub"):  # nothing is known of what lies there: it has a row
        assert nights.night()["counts"]["rejected"] == 1
    row = nights.ledger()[str(nights.root / "p/sub")]
    assert (row.status, row.reason) == ("rejected", "unreadable")
    assert nights.night()["counts"]["embedded"] == 4


@pytest.mark.slow
def test_a_file_that_cannot_be_read(nights: Nights) -> None:
    """Reading another process's memory from its beginning is an I/O error, to root as well."""
    path, away = nights.root / "p/000.jpg", nights.root / "away"

    @contextmanager
    def trouble() -> Iterator[None]:
        path.rename(away)
        path.symlink_to("/proc/self/mem")
        yield
        path.unlink()
        away.rename(path)

    unknown = nights.away_for_a_night(trouble, 1)
    [row] = unknown.values()
    assert (row.uri, row.reason, row.detail) == (str(path), "unreadable", "Input/output error")
    with trouble():
        name = nights.night()["name"]
        assert nights.night()["name"] == name  # looked at again, and nothing is new
    (nights.root / "p/new.jpg").symlink_to("/proc/self/mem")
    nights.night()
    row = nights.ledger()[str(nights.root / "p/new.jpg")]
    assert (row.status, row.reason) == ("rejected", "unreadable")  # nothing is known of it


def test_another_model_waits_for_what_is_away(
    nights: Nights, capsys: pytest.CaptureFixture[str]
) -> None:
    name = nights.night()["name"]
    nights.config += "metric: l2\n"
    with closed(nights.root / "p/sub"):
        assert nights.run() == 3
    assert "4 files of" in capsys.readouterr().err
    assert snapshot.read_manifest(open_store(nights.store))["name"] == name
    assert nights.night()["counts"]["embedded"] == 10


def test_what_is_unknown_can_be_forgotten(nights: Nights) -> None:
    sub = nights.root / "p/sub"
    nights.night()
    with closed(sub):
        nights.night()
        assert main(["forget", "--store", str(nights.store), "--uri", str(sub / "000.jpg")]) == 0
        assert str(sub / "000.jpg") not in nights.answers()
        assert nights.night()["counts"]["unknown"] == 3
    counts = nights.night()["counts"]
    assert (counts["embedded"], counts["unchanged"], counts["ignored"]) == (0, 9, 1)


@pytest.mark.slow
def test_a_prefix_on_object_storage(
    nights: Nights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bucket that answers 500 for a night."""
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    with s3_server(tmp_path / "served") as server, faulty_proxy(server) as (port, faults):
        for path in sorted((nights.root / "p").rglob("*.jpg")):
            key = path.relative_to(nights.root).as_posix()
            asked = http.client.HTTPConnection("127.0.0.1", server)
            asked.request("PUT", f"/{BUCKET}/{key}", path.read_bytes() + b"\0")
            assert asked.getresponse().status == 200
            asked.close()

        @contextmanager
        def trouble() -> Iterator[None]:
            faults.plan("500 before", lasting=True)
            yield
            faults.plan()

        nights.config += "publish: {max_unreadable_share: 0.6}\n"
        nights.sources.append(store_uri(port, "p"))
        nights.away_for_a_night(trouble, 10)
