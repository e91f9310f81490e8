"""Units whose contents the store knows, or must not keep."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from lookalike.embedding import embed_files
from lookalike.images.decoding import Decoder
from lookalike.images.limits import ImageLimits
from lookalike.models.embedder import Embedder
from lookalike.models.features import Feature
from lookalike.outcomes import Decoded, Duplicate, Failed
from lookalike.records import SourceFile, Unit
from lookalike.store import snapshot
from lookalike.store.forgotten import Forgotten, forgotten_row, write_forgotten
from lookalike.store.ledger import LedgerRow, metadata_hash, read_ledger
from lookalike.store.objects import open_store
from lookalike.store.shards import iter_rows
from lookalike.unit_embedding import embed_unit
from tests.conftest import picture

METADATA = pa.schema([("label", pa.string())])


@pytest.fixture(scope="module")
def embedder(indexed: tuple[Path, Path]) -> Embedder:
    features = snapshot.read_manifest(open_store(indexed[0]))["features"]
    return Embedder([Feature.from_json(line) for line in features], indexed[0], "cosine")


@pytest.fixture
def decoder(embedder: Embedder) -> Iterator[Decoder]:
    with Decoder(embedder.sizes, ImageLimits()) as decoder:
        yield decoder


@pytest.fixture
def files(tmp_path: Path) -> dict[str, SourceFile]:
    """Pictures named by a letter for the content and a number: a0 and a1 are equal."""
    found = {}
    for name in ("a0", "a1", "b0", "b1", "c0", "d0"):
        path = tmp_path / "in" / f"{name}.png"
        path.parent.mkdir(exist_ok=True)
        picture(ord(name[0])).save(path)
        found[name] = SourceFile(str(path), path.stat().st_size, name, metadata={"label": name})
    path = tmp_path / "in" / "x0.png"
    path.write_bytes(b"no picture")
    found["x0"] = SourceFile(str(path), 10, "x0", metadata={"label": None})
    return found


def sha256(file: SourceFile) -> bytes:
    return hashlib.sha256(Path(file.uri).read_bytes()).digest()


def run(
    store: Path,
    files: Mapping[str, SourceFile],
    embedder: Embedder,
    decoder: Decoder,
    **options: Any,
) -> tuple[dict[str, Any], list[LedgerRow]]:
    unit = Unit(0, 5, "embeddings/5", "ledger/0", "done/0.json")
    done = embed_unit(
        unit, open_store(store), files.values(), embedder, decoder, METADATA, {}, **options
    )()
    return done, list(read_ledger(store / done["ledger"]["path"]))


def test_what_is_known_is_not_embedded(
    tmp_path: Path, files: dict[str, SourceFile], embedder: Embedder, decoder: Decoder
) -> None:
    known = {sha256(files["a0"]): 77, sha256(files["d0"]): 78, bytes(32): 79}
    done, rows = run(tmp_path, files, embedder, decoder, known=known)
    assert [(row.version, row.status, row.id) for row in rows] == [
        ("a0", "unchanged", 77),
        ("a1", "unchanged", 77),
        ("b0", "embedded", 5 << 32),
        ("b1", "duplicate", 5 << 32),
        ("c0", "embedded", 5 << 32 | 1),
        ("d0", "unchanged", 78),
        ("x0", "rejected", None),
    ]
    for row in rows:
        file = files[row.version]
        assert (row.uri, row.bytes, row.content_sha256) == (file.uri, file.bytes, sha256(file))
        assert row.metadata_hash == metadata_hash(file.metadata)
    assert rows[0].metadata_hash != rows[1].metadata_hash
    assert rows[-1].metadata_hash == 0
    assert {name: done["counts"][name] for name in ("unchanged", "embedded", "duplicate")} == {
        "unchanged": 3,
        "embedded": 2,
        "duplicate": 1,
    }
    stored = iter_rows(tmp_path / done["shard"]["path"], ["uri"])
    assert [row["uri"] for row in stored] == [files["b0"].uri, files["c0"].uri]


def test_where_all_is_known_there_is_no_shard(
    tmp_path: Path, files: dict[str, SourceFile], embedder: Embedder, decoder: Decoder
) -> None:
    del files["x0"]
    known = {sha256(file): number for number, file in enumerate(files.values())}
    done, rows = run(tmp_path, files, embedder, decoder, known=known)
    assert done["shard"] is None
    assert {row.status for row in rows} == {"unchanged"}


def test_what_is_forgotten_is_not_kept(
    tmp_path: Path, files: dict[str, SourceFile], embedder: Embedder, decoder: Decoder
) -> None:
    gone = [sha256(files["a0"]), sha256(files["x0"])]
    write_forgotten(open_store(tmp_path), "forgotten.npy", gone)
    forgotten = Forgotten.load([tmp_path / "forgotten.npy"])
    done, rows = run(tmp_path, files, embedder, decoder, forgotten=forgotten, known={gone[0]: 3})
    expected = [forgotten_row(files[name].uri, sha256(files[name])) for name in ("a0", "a1", "x0")]
    assert sorted(row.uri for row in rows[-3:]) == sorted(row.uri for row in expected)
    assert {row.uri: row for row in rows if row.reason} == {row.uri: row for row in expected}
    assert {row.version for row in rows} == {"", "b0", "b1", "c0", "d0"}
    assert (done["counts"]["ignored"], done["counts"]["embedded"]) == (3, 3)
    written = [tmp_path / done[name]["path"] for name in ("ledger", "shard")]
    for path in written:
        data = path.read_bytes()
        assert not any(text in data for text in (*gone, files["a0"].uri.encode()))


def test_known_contents_are_told_to_a_new_process(
    files: dict[str, SourceFile], decoder: Decoder
) -> None:
    known = {sha256(files["c0"])}

    def killing() -> Iterator[SourceFile]:
        yield files["a0"]
        decoder.start()
        decoder._running._popen.kill()  # type: ignore[union-attr]
        yield from (files["c0"], files["b0"])

    outcomes = list(decoder.decode(killing(), once=True, known=known))
    assert [type(one) for one in outcomes] == [Decoded, Duplicate, Decoded]
    alone = list(decoder.decode([files["c0"]], once=True))  # it holds for one call
    assert [type(one) for one in alone] == [Decoded]


def test_forgotten_pictures_do_not_reach_the_model(
    files: dict[str, SourceFile], embedder: Embedder, decoder: Decoder
) -> None:
    digest = sha256(files["a0"])
    wanted = [files[name] for name in ("a0", "a1", "c0")]
    outcomes = list(embed_files(wanted, embedder, decoder, forgotten={digest}))
    assert [(one.status, one.reason) for one in outcomes if isinstance(one, Failed)] == [
        ("ignored", "forgotten"),
        ("ignored", "forgotten"),
    ]
    assert len(outcomes) == 3
    assert np.isfinite(outcomes[-1].vector).all()  # type: ignore[union-attr]
