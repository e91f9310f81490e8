from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from lookalike.store.durable import write_json
from lookalike.store.objects import open_store
from lookalike.store.runs import Plan, Run

ROOT = Path(__file__).resolve().parent.parent
REQUEST: dict[str, Any] = {
    "sources": ["/a"],
    "metric": "cosine",
    "images": {"max": 1},
    "parent": None,
}
PLAN = Plan(
    "20240102T030405Z-abcdef",
    "2024-01-02T03:04:05+00:00",
    10,
    5,
    1,
    "d" * 64,
    ("runs/x/listing/00000.parquet",),
    (0, 2, 3),
    40,
    pa.schema([("label", pa.string()), ("tags", pa.list_(pa.float64()))]),
)


# --- which run --------------------------------------------------------------------------------


def test_the_same_request_continues_the_same_run(tmp_path: Path) -> None:
    name = Run.for_request(open_store(tmp_path), REQUEST).name
    assert Run.for_request(open_store(tmp_path), dict(reversed(REQUEST.items()))).name == name
    assert Run.for_request(open_store(tmp_path / "elsewhere"), REQUEST).name == name
    for change in ({"sources": ["/b"]}, {"metric": "l2"}, {"images": {"max": 2}}, {"parent": "x"}):
        assert Run.for_request(open_store(tmp_path), {**REQUEST, **change}).name != name


def test_a_plan_is_there_once_it_is_committed(tmp_path: Path) -> None:
    run = Run.for_request(open_store(tmp_path), REQUEST)
    run.start()
    assert run.plan() is None
    write_json(tmp_path, f"{run.folder}/listing/00000.parquet", "left by the scan")
    assert run.plan() is None
    run.commit_plan(PLAN)
    assert Run.for_request(open_store(tmp_path), REQUEST).plan() == PLAN


def test_start_and_finish_remove_the_scratch_of_this_run_alone(tmp_path: Path) -> None:
    run, other = Run(open_store(tmp_path), "one"), Run(open_store(tmp_path), "other")
    for each in (run, other):
        each.start()
        each.commit_plan(PLAN)
    run.start()
    assert run.plan() is None
    run.commit_plan(PLAN)
    run.finish()
    run.finish()
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["other"]
    assert other.plan() == PLAN


def test_every_start_has_a_folder_of_its_own(tmp_path: Path) -> None:
    run = Run(open_store(tmp_path), "r")
    with pytest.raises(RuntimeError, match="run r was neither started nor found"):
        _ = run.folder
    folders = set()
    for _ in range(3):
        run.start()
        folders.add(run.folder)
        run.commit_plan(PLAN)
    assert len(folders) == 3
    found = Run(open_store(tmp_path), "r")
    assert found.plan() == PLAN
    assert found.folder == run.folder


def test_what_an_earlier_start_comes_to_write_is_not_read(tmp_path: Path) -> None:
    run = Run(open_store(tmp_path), "r")
    run.start()
    late = run.names(PLAN).unit(0).done
    run.start()
    run.commit_plan(PLAN)
    write_json(tmp_path, late, {"counts": {"listed": 7}})
    assert (run.done("embedded"), run.files_done()) == ({}, 0)
    run.finish()
    write_json(tmp_path, late, {"counts": {"listed": 7}})
    assert Run(open_store(tmp_path), "r").plan() is None
    run.start()
    assert not (tmp_path / late).exists()


def test_a_plan_of_an_earlier_version_is_begun_anew(tmp_path: Path) -> None:
    """Its files had fixed names."""
    write_json(tmp_path, "runs/r/plan.json", PLAN.to_json())
    assert Run(open_store(tmp_path), "r").plan() is None


def test_units_have_settled_names_and_their_own_file_numbers(tmp_path: Path) -> None:
    run = Run(open_store(tmp_path), "r", "b")
    units = list(run.units(PLAN))
    assert units == [run.names(PLAN).unit(number) for number in range(3)]
    assert [unit.file_no for unit in units] == [40, 41, 42]
    names = [name for unit in units for name in (unit.shard, unit.ledger, unit.done)]
    assert len(set(names)) == 3 * PLAN.units
    # everything but the shard is scratch; a shard bears its run's name and overwrites no other's
    assert {name.split("/")[0] for name in names} == {"runs", "embeddings"}
    assert Run(open_store(tmp_path), "s", "b").names(PLAN).unit(0).shard != units[0].shard


def test_done_units_are_known_by_their_records(tmp_path: Path) -> None:
    run = Run(open_store(tmp_path), "r", "b")
    assert (run.done("embedded"), run.files_done()) == ({}, 0)
    listed = {0: 7, 2: 5}
    for number, count in listed.items():
        write_json(tmp_path, run.names(PLAN).unit(number).done, {"counts": {"listed": count}})
        (tmp_path / run.folder / "embedded" / ".000001.json.abc.tmp").write_text('{"half')
    assert run.done("embedded") == {0: {"counts": {"listed": 7}}, 2: {"counts": {"listed": 5}}}
    assert run.done("encoded") == {}
    assert run.files_done() == 12
    write_json(tmp_path, run.names(PLAN).unit(1).done, {"counts": {"listed": 1}})
    assert run.files_done() == 13
