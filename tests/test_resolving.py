from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lookalike.reconcile import by_content, copying, resolving, settling
from lookalike.store import duplicates, partitions
from lookalike.store.ledger import STATUSES, LedgerRow, metadata_hash
from tests.days import IGNORED, REJECTED, Day, File, Store, World, digest, vector

URIS = st.sampled_from([f"/{letter}" for letter in "abcdefghé"])
FILES = st.builds(
    File, st.integers(IGNORED, 4), st.integers(1, 3), st.sampled_from([None, "x", "y"])
)
WORLDS = st.dictionaries(URIS, FILES, max_size=9)
CUTS = st.lists(st.integers(0, 2), min_size=1, max_size=5)
NIGHTS = st.lists(st.tuples(WORLDS, CUTS, st.booleans()), min_size=1, max_size=5)


def aged(before: World, world: World) -> World:
    """Contents change with their versions."""
    found = {}
    for uri, file in world.items():
        old = before.get(uri)
        changed = old is not None and old.content != file.content and old.version == file.version
        found[uri] = replace(file, version=file.version + 10) if changed else file
    return found


def with_vector(world: World) -> dict[str, int]:
    return {uri: file.content for uri, file in world.items() if file.content > 0}


def mains(world: World, by_content: bool) -> dict[str, str]:
    """The main name of every name with a vector, as a run from scratch finds it."""
    groups: dict[object, list[str]] = defaultdict(list)
    for uri, content in with_vector(world).items():
        groups[content if by_content else uri].append(uri)
    return {uri: min(uris) for uris in groups.values() for uri in uris}


def check(store: Store, day: Day, before: World, world: World) -> None:
    """Everything that a day promises, against the files of it and of the day before."""
    rows, main = store.rows(), mains(world, store.by_content)
    stored = store.stored()
    listed = {uri: row for uri, row in rows.items() if row.status != "removed"}
    assert set(listed) == set(world)
    assert set(rows) - set(listed) == set(before) - set(world)
    for uri, row in rows.items():
        if row.status == "removed":
            assert (row.id, row.reason, row.detail) == (None, "", "")
            continue
        file = world[uri]
        assert row.content_sha256 == digest(file.content)
        assert (row.bytes, row.version) == (10, str(file.version))
        assert row.metadata_hash == metadata_hash({"label": file.label})
        if file.content == REJECTED:
            assert (row.status, row.reason, row.detail) == ("rejected", "truncated", "half of it")
        elif file.content == IGNORED:
            assert (row.status, row.reason, row.detail) == ("ignored", "", "")
        elif main[uri] != uri:
            assert (row.status, row.detail, row.id) == ("duplicate", main[uri], rows[main[uri]].id)
        else:
            assert row.status in ("embedded", "unchanged")
            assert (row.reason, row.detail) == ("", "")
            assert row.id is not None
            one = stored[row.id]
            assert (one["uri"], one["content_sha256"]) == (uri, row.content_sha256)
            assert (one["label"], one["height"]) == (file.label, file.content)
            assert one["embedding"] == vector(file.content).tolist()
    assert set(stored) - store.deleted == {row.id for row in rows.values()} - {None}
    assert store.deleted <= set(stored)
    check_sums(store, day, before, world)
    names: dict[int, list[str]] = defaultdict(list)
    for uri, row in sorted(rows.items()):
        if row.status == "duplicate" and row.id is not None:
            names[row.id].append(uri)
    lines = [line for line in day.lines if line["kind"] == "duplicates"]
    table = [row for line in lines for row in pq.read_table(store.root / line["path"]).to_pylist()]
    assert [(one["id"], one["uris"]) for one in table] == sorted(names.items())
    assert sum(line["rows"] for line in lines) == len(names)


def check_sums(store: Store, day: Day, before: World, world: World) -> None:
    rows = store.rows()
    counts, changes = day.resolved.counts, day.resolved.changes
    assert {name: counts[name] for name in STATUSES} == {
        name: sum(row.status == name for row in rows.values()) for name in STATUSES
    }
    assert counts["listed"] == len(world)
    rejected = counts["rejected"]
    assert counts["rejected_by_reason"] == ({"truncated": rejected} if rejected else {})
    kept = set(before) & set(world)
    same = {uri for uri in kept if before[uri].content == world[uri].content}
    touched = {uri for uri in same if before[uri] != world[uri]}
    assert changes["previous"] == len(before)
    assert changes["unchanged"] == len(same)
    assert changes["changed"] == len(kept - same)
    assert changes["removed"] == len(set(before) - kept)
    assert changes["added"] == len(set(world) - kept)
    assert changes["rehashed"] == len(touched)
    assert changes["renamed"] == (renamed(before, world) if store.by_content else 0)
    assert day.resolved.deleted == len(day.deleted)
    if len(store.days) > 1:
        old, new = plain(store.rows(-2)), plain(rows)
        altered = sum(old[uri] != new[uri] for uri in set(old) & set(new))
        assert day.resolved.altered == altered
        assert day.resolved.nothing_happened == (old == new)


def plain(rows: dict[str, LedgerRow]) -> dict[str, LedgerRow]:
    """Of the files that are there; embedded is unchanged of the next day."""
    return {
        uri: replace(row, status="unchanged") if row.status == "embedded" else row
        for uri, row in rows.items()
        if row.status != "removed"
    }


def renamed(before: World, world: World) -> int:
    """Pairs of names that came and names that went, of equal content."""
    old, new = with_vector(before), with_vector(world)
    came = Counter(content for uri, content in new.items() if uri not in before)
    went = Counter(content for uri, content in old.items() if uri not in world)
    return sum((came & went).values())


@pytest.fixture(autouse=True, scope="module")
def small_parts():
    """So that all of it happens in several parts, with a few names."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(resolving, "_PART_ROWS", 3)
        patch.setattr(resolving, "_TASK_ROWS", 5)
        patch.setattr(settling, "_BATCH", 2)
        patch.setattr(by_content, "COPY_ROWS", 2)
        patch.setattr(copying, "_BLOCK", 1)
        patch.setattr(partitions, "PARTITION_ROWS", 3)
        patch.setattr(duplicates, "_PART_ROWS", 2)
        yield


@pytest.mark.slow
@pytest.mark.parametrize("by_content", [True, False])
@settings(max_examples=25)
@given(nights=NIGHTS)
def test_every_day_is_as_from_scratch(by_content: bool, nights) -> None:
    with TemporaryDirectory() as folder:
        store, before = Store(Path(folder), by_content), {}
        for world, cuts, known in nights:
            world = aged(before, world)
            day = store.run(world, cuts, known)
            check(store, day, before, world)
            before = world


def test_a_killed_run_resolves_again_and_a_finished_one_does_not(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.run({"/b": File(1), "/c": File(2)})
    day = store.run({"/a": File(1), "/b": File(1), "/c": File(3, 1)})
    folder = day.folder / "resolved"
    finished = contents(folder)
    assert store.resolve() == day.resolved
    (folder / "resolved.json").unlink()
    (folder / "dead.npy").write_bytes(b"half of it")
    for record in ("dealt/names/000000", "dealt/contents/000000", "dealt/000000"):
        path = folder / f"{record}.json"
        path.unlink()
        assert store.resolve() == day.resolved
        (folder / "resolved.json").unlink()
    assert store.resolve() == day.resolved
    assert contents(folder) == finished


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_what_does_not_balance_is_not_published(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.run({"/a": File(1), "/b": File(2)})
    with pytest.raises(RuntimeError, match="ledger does not balance: 2 files listed, 1 in the"):
        store.run({"/a": File(1), "/c": File(3)}, lost={"/c"})


def test_an_id_that_leads_to_no_shard_is_not_published(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.run({"/a": File(1), "/c": File(2)})
    store.shards.clear()
    with pytest.raises(RuntimeError, match="lead to embedding shard 5, which is not there"):
        store.run({"/b": File(1), "/c": File(2)})


def test_a_content_without_a_stored_row_is_not_published(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with pytest.raises(RuntimeError, match="/a: its content is known, but no stored row"):
        store.run({"/a": File(1)}, invented={digest(1): 7 << 32})
