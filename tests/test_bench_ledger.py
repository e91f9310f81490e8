from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import ledger
from lookalike.store import partitions
from lookalike.store.ledger import read_ledger


def test_a_night_on_a_made_ledger_finds_what_was_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(partitions, "PARTITION_ROWS", 1000)
    monkeypatch.setattr(ledger, "_BLOCK", 1500)
    ledger.make(tmp_path, 6000)
    about = json.loads((tmp_path / "parent.json").read_text())
    before = {
        row.uri: row for line in about["parent"] for row in read_ledger(tmp_path / line["path"])
    }
    found = ledger.night(tmp_path)
    rows = [
        row
        for path in sorted((tmp_path / "snapshots/new/ledger").glob("*"))
        for row in read_ledger(path)
    ]
    listed = {row.uri: row for row in rows if row.status != "removed"}
    new, gone = listed.keys() - before.keys(), before.keys() - listed.keys()
    changed = {
        uri
        for uri in listed.keys() & before.keys()
        if listed[uri].content_sha256 != before[uri].content_sha256
    }
    changes = found["changes"]
    assert (len(before), len(listed)) == (6000, about["rows"])
    assert (changes["added"], changes["removed"]) == (len(new), len(gone))
    assert changes["changed"] == len(changed)
    assert min(len(new), len(gone), len(changed), changes["renamed"]) > 0
    vectors = {row.content_sha256 for row in before.values()}
    again = [
        row for row in listed.values() if row.status == "embedded" and row.content_sha256 in vectors
    ]
    assert not again  # nothing known is embedded again
    assert found["peak"] > 2**20
