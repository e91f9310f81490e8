"""Days of a store, without pictures: what the stages around `resolve` leave, for its tests."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lookalike.reconcile.assembling import ledger_of_run, samples_of, write_ledger_files
from lookalike.reconcile.compared import files_of
from lookalike.reconcile.resolving import copy, resolve
from lookalike.reconcile.settling import Resolved
from lookalike.records import SourceFile
from lookalike.sources.listing import listing_schema, write_listing
from lookalike.store import shard_format, shards
from lookalike.store.files import HashedName
from lookalike.store.ledger import Counts, LedgerRow, metadata_hash, read_ledger, write_ledger
from lookalike.store.objects import open_store
from tests.exchanged import meet_here
from tests.scanning import compare

METADATA = pa.schema([("label", pa.string())])
DIM = 3
SCHEMA = shard_format.schema(DIM, METADATA, {"lookalike.x": "y"})
REJECTED, IGNORED = 0, -1  # contents that become no vector
NONE: Mapping[bytes | None, int | None] = {}


@dataclass(frozen=True)
class File:
    """A file of one day; the size says nothing of the content."""

    content: int
    version: int = 0
    label: str | None = None


World = Mapping[str, File]


def digest(content: int) -> bytes:
    """A content's sha256."""
    return hashlib.sha256(b"%d" % content).digest()


def vector(content: int) -> np.ndarray:
    """A content's vector."""
    return np.array([content, content**0.5, 1], dtype=np.float32)


@dataclass
class Day:
    """What is left of one day."""

    resolved: Resolved
    lines: list[dict[str, Any]]
    deleted: list[int]
    folder: Path
    samples: Mapping[str, list[dict[str, Any]]]

    @property
    def ledger(self) -> list[dict[str, Any]]:
        """The manifest's lines of the ledger."""
        return [line for line in self.lines if line["kind"] == "ledger"]


@dataclass
class Store:
    """A store that lives from day to day."""

    root: Path
    by_content: bool = True
    next_file_no: int = 5
    shards: dict[int, str] = field(default_factory=dict)
    days: list[Day] = field(default_factory=list)
    deleted: set[int] = field(default_factory=set)
    runs: str = "runs"  # folder of scratch
    begun: int = -1  # the last day, and its units
    first_unit: int = 0
    units: int = 0

    def rows(self, day: int = -1) -> dict[str, LedgerRow]:
        """A day's ledger by uri."""
        found = [
            row for line in self.days[day].ledger for row in read_ledger(self.root / line["path"])
        ]
        assert len({row.uri for row in found}) == len(found)
        return {row.uri: row for row in found}

    def stored(self) -> dict[int, dict[str, Any]]:
        """All rows of all shards by id."""
        return {
            row["id"]: row
            for path in self.shards.values()
            for row in pq.read_table(self.root / path).to_pylist()
        }

    def run(
        self,
        world: World,
        cuts: Sequence[int] = (),
        known: bool = True,
        *,
        lost: Collection[str] = (),
        invented: Mapping[bytes | None, int | None] = NONE,
    ) -> Day:
        """One night: compare, embed, resolve, copy, assemble.

        Args:
            world: The files.
            cuts: How candidates fall to units: the i-th to unit `cuts[i % len(cuts)]`.
            known: Whether contents of the last ledger are recognised while embedding.
            lost: Names that the units' ledgers leave out.
            invented: Contents that are said to be known, and are not.
        """
        self.begun = len(self.days)
        run, folder = f"{self.runs}/{self.begun}", f"snapshots/{self.begun}"
        files = [
            SourceFile(uri, 10, str(file.version), metadata={"label": file.label})
            for uri, file in world.items()
        ]
        listing = write_listing(
            open_store(self.root), f"{run}/listing", files, listing_schema(METADATA)
        )
        before = self.days[-1].ledger if self.days else []
        compare(
            open_store(self.root),
            listing,
            before,
            f"{run}/compared",
            scanned_ns=None,
            metadata=METADATA,
        )
        self.first_unit = self.next_file_no
        self.units = self._embed(world, run, cuts, known, lost, invented)
        resolved = self.resolve()
        copied = copy(
            open_store(self.root),
            f"{run}/resolved",
            meet=meet_here(open_store(self.root)),
            metadata=METADATA,
            schema=SCHEMA,
            run="x",
        )
        assert len(copied) == resolved.copy_shards
        for line in copied:
            self.shards[line["file_no"]] = line["path"]
            self.next_file_no = line["file_no"] + 1
        ledger = ledger_of_run(
            open_store(self.root), folder, f"{run}/compared", f"{run}/resolved", self.shards, None
        )
        lines = write_ledger_files(
            open_store(self.root), ledger, meet_here(open_store(self.root)), 0
        )
        deleted = np.load(self.root / run / "resolved" / "dead.npy").tolist()
        assert not self.deleted & set(deleted)
        self.deleted |= set(deleted)
        samples = samples_of(open_store(self.root), ledger)
        self.days.append(Day(resolved, lines, deleted, self.root / run, samples))
        return self.days[-1]

    def resolve(self) -> Resolved:
        """Resolve the day that was begun last."""
        run, store = f"{self.runs}/{self.begun}", open_store(self.root)
        embedded = f"{run}/embedded"
        return resolve(
            store,
            [store.read_json(path) for path in store.files(embedded, ".json")],
            embedded,
            f"{run}/compared",
            f"{run}/resolved",
            meet=meet_here(store),
            by_content=self.by_content,
            first_file_no=self.first_unit,
            metadata=METADATA,
            listing=store.files(f"{run}/listing", ".parquet"),
            shards={n: path for n, path in self.shards.items() if n < self.first_unit + self.units},
        )

    def _embed(
        self,
        world: World,
        run: str,
        cuts: Sequence[int],
        known: bool,
        lost: Collection[str],
        invented: Mapping[bytes | None, int | None],
    ) -> int:
        """Let the units leave what they leave; returns how many there are."""
        uris: list[str] = []
        for path in files_of(open_store(self.root), f"{run}/compared", "candidates"):
            uris += [u for u in pq.read_table(self.root / path)["uri"].to_pylist() if u not in lost]
        rows = self.rows() if self.days else {}
        before = {uri: row for uri, row in rows.items() if row.status != "removed"}
        ids = {row.content_sha256: row.id for row in before.values() if row.id is not None}
        by_unit: dict[int, list[str]] = {}
        for i, uri in enumerate(uris):
            by_unit.setdefault(cuts[i % len(cuts)] if cuts else 0, []).append(uri)
        for number, names in enumerate(by_unit.values()):
            record = self._embed_unit(
                f"{run}/ledger/{number:06d}",
                names,
                world,
                before,
                ids if known and not invented else invented,
            )
            open_store(self.root).write_json(f"{run}/embedded/{number:06d}.json", record)
            self.next_file_no += 1
        return len(by_unit)

    def _embed_unit(
        self,
        ledger: str,
        names: Sequence[str],
        world: World,
        before: Mapping[str, LedgerRow],
        ids: Mapping[bytes | None, int | None],
    ) -> dict[str, Any]:
        rows: list[LedgerRow] = []
        first: dict[bytes, LedgerRow] = {}
        file_no = self.next_file_no
        shard = f"embeddings/{file_no}.parquet"
        with shards.open_shard(open_store(self.root), shard, SCHEMA, file_no) as (writer, pending):
            for uri in names:
                file, sha256 = world[uri], digest(world[uri].content)
                status, reason, detail, row_id = "embedded", "", "", None
                old = before.get(uri)
                if file.content == REJECTED:
                    status, reason, detail = "rejected", "truncated", "half of it"
                elif file.content == IGNORED:
                    status = "ignored"
                elif sha256 in first and self.by_content:
                    status, detail, row_id = "duplicate", first[sha256].uri, first[sha256].id
                elif self.by_content and sha256 in ids:
                    status, row_id = "unchanged", ids[sha256]
                elif (
                    not self.by_content
                    and old is not None
                    and (
                        old.content_sha256 == sha256
                        and old.metadata_hash == metadata_hash({"label": file.label})
                    )
                ):
                    status, row_id = "unchanged", old.id
                else:
                    row = {
                        "uri": uri,
                        "content_sha256": sha256,
                        "width": 1,
                        "height": file.content,
                        "format": "PNG",
                        "bytes": 9,
                        "label": file.label,
                    }
                    row_id = writer.append(row, vector(file.content))
                row = LedgerRow(
                    uri,
                    status,
                    reason,
                    detail,
                    10,
                    str(file.version),
                    sha256,
                    row_id,
                    metadata_hash({"label": file.label}),
                )
                rows.append(row)
                if row_id is not None:
                    first.setdefault(sha256, row)
            if writer.rows:
                self.shards[file_no] = shard
            else:
                pending.drop()
        counts = Counts()
        for row in rows:
            counts.add(row)
        name = HashedName(ledger, ".parquet")
        record, _ = write_ledger(open_store(self.root), name, sorted(rows, key=lambda row: row.uri))
        return {"ledger": record.to_json(), "counts": counts.to_json()}
