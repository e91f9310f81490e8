"""Units that are finished beside the next one: in order, never unnoticed, and done again."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from threading import Event, get_ident
from typing import Any

import pytest

from lookalike import unit_embedding
from lookalike.behind import Behind
from lookalike.pipelines.cli import main
from lookalike.store import snapshot
from lookalike.store.ledger import write_ledger
from lookalike.store.objects import open_store

PATIENCE_S = 60


def test_work_is_done_in_order_beside_the_caller() -> None:
    behind: Behind[int] = Behind()
    begun, go_on, done = Event(), Event(), []

    def slow() -> int:
        begun.set()
        assert go_on.wait(PATIENCE_S)
        done.append((1, get_ident()))
        return 1

    def quick() -> int:
        done.append((2, get_ident()))
        return 2

    assert behind.hand_over(slow) is None
    assert begun.wait(PATIENCE_S)
    assert not done  # it goes on while the caller does
    go_on.set()
    assert behind.hand_over(quick) == 1
    assert behind.wait() == 2
    assert behind.wait() is None
    assert [number for number, _ in done] == [1, 2]
    assert get_ident() not in {thread for _, thread in done}
    behind.close()


@pytest.mark.parametrize(
    "collect",
    [Behind.wait, lambda behind: behind.hand_over(lambda: 0)],
    ids=["at the end", "with the next"],
)
def test_an_error_is_raised_once_where_it_is_waited_for(
    collect: Callable[[Behind[int]], int | None],
) -> None:
    behind: Behind[int] = Behind()

    def fails() -> int:
        raise OSError("no room")

    behind.hand_over(fails)
    with pytest.raises(OSError, match="no room"):
        collect(behind)
    assert behind.wait() in (None, 0)
    behind.close()


def test_a_bundle_that_failed_leaves_its_errors_behind() -> None:
    behind: Behind[int] = Behind()

    def fails() -> int:
        raise OSError("of the bundle before")

    behind.hand_over(fails)
    behind.forget()
    assert behind.hand_over(lambda: 5) is None
    assert behind.wait() == 5
    behind.close()


@pytest.mark.slow
@pytest.mark.parametrize("unit", [0, 2], ids=["beside the next unit", "at the end of the bundle"])
def test_a_unit_that_cannot_be_finished_ends_the_run_and_is_done_by_the_next(
    unit: int,
    pictures: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "config.yaml").write_text(
        "features: [{name: low, handle: 'builtin:color-texture'}]\n"
        "runner: {workers: 1}\nembed: {unit_files: 2}\n"
    )
    store = tmp_path / "store"
    command = [
        "index",
        "--config",
        str(tmp_path / "config.yaml"),
        "--images",
        str(pictures(6)),
        "--store",
        str(store),
        "--log-level",
        "info",
    ]

    def broken(store: Any, name: Any, rows: Any) -> Any:
        if str(name).endswith(f"/ledger/{unit:06d}.parquet"):
            raise OSError("no room at all")
        return write_ledger(store, name, rows)

    with monkeypatch.context() as patch:
        patch.setattr(unit_embedding, "write_ledger", broken)
        assert main(command) != 0
    said = capsys.readouterr().err
    assert "no room at all" in said.splitlines()[-1]
    assert re.search(rf"embed: unit {unit}, attempt \S+: failed after .*: no room at all", said)
    assert snapshot.current(open_store(store)) is None
    assert not [*store.glob(f"runs/*/*/embedded/{unit:06d}.json")]
    assert main(command) == 0
    if unit == 2:  # those before it had been waited for
        assert "embed: 4 files are done already" in capsys.readouterr().err
    counts = snapshot.read_manifest(open_store(store))["counts"]
    assert (counts["embedded"], counts["vectors"]) == (6, 6)
