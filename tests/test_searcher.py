"""What becomes of an open `Searcher`: moves, new snapshots, gc, forks, closing, values."""

from __future__ import annotations

import inspect
import json
import multiprocessing
import os
import pickle
import subprocess
import sys
import threading
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest

import lookalike
from lookalike import Neighbour, RequestError, Searcher
from lookalike.store import retention, snapshot
from lookalike.store.objects import open_store
from tests import publishing
from tests.vector_stores import clustered, make_store

ROOT = Path(__file__).resolve().parent.parent


def night(store: Path, name: str, seed: int, rows: int = 30) -> np.ndarray:
    """Publish a snapshot of other vectors under other paths, uris `/<name>/…`; the vectors."""
    _, vectors, manifest = make_store(store / "made" / name, clustered(rows, 8, seed=seed))
    lines = [{**line, "path": f"made/{name}/{line['path']}"} for line in manifest["files"]]
    trained = [line for line in lines if line["kind"] == "template"]
    assert trained
    publishing.publish(open_store(store), {**manifest, "name": name, "files": lines})
    return vectors


# --- where it lies ----------------------------------------------------------------------------


def test_a_relative_store_stays_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids, vectors, _ = make_store(tmp_path / "here" / "store", clustered(30, 8))
    (tmp_path / "there").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    opened = [
        lookalike.open("store"),
        lookalike.open(Path("store")),
        lookalike.open("./x/../store"),
        Searcher.open("store"),
        Searcher(open_store(Path("store")), snapshot.read_manifest(open_store(Path("store")))),
    ]
    dataset = lookalike.dataset("store")
    monkeypatch.chdir(tmp_path / "there")
    for searcher in opened:
        assert searcher.store == open_store(tmp_path / "here" / "store")
        [found] = searcher.search(vectors=vectors[3], k=1, where="width = 4")
        assert (found[0].id, found[0].duplicates) == (ids[3], ("/c",))
        assert searcher.rows([ids[5]])["uri"].to_pylist() == ["/pictures/5.png"]
        assert searcher.refresh() is False
    assert dataset.count_rows() == 30


def test_a_store_may_be_named_by_a_uri_of_a_file(tmp_path: Path) -> None:
    make_store(tmp_path / "a store", clustered(30, 8))
    searcher = lookalike.open(f"file://{tmp_path}/a%20store")
    assert searcher.store == open_store(tmp_path / "a store")


# --- other snapshots --------------------------------------------------------------------------


def test_refresh_goes_to_what_is_published(tmp_path: Path) -> None:
    night(tmp_path, "one", 0)
    searcher, pinned = lookalike.open(tmp_path), lookalike.open(tmp_path, "one", check=True)
    assert searcher.refresh() is False
    vectors = night(tmp_path, "two", 1, rows=20)
    for one in (searcher, pinned):
        assert (one.manifest["name"], one.count) == ("one", 30)
        assert one.refresh() is True
        assert (one.manifest["name"], one.count) == ("two", 20)
        assert one.search(vectors=vectors[4], k=1)[0][0].score == pytest.approx(1)
        assert one.refresh() is False
    open_store(tmp_path).put(snapshot.CURRENT, b"one\n")  # gone back
    assert searcher.refresh() is True
    assert searcher.manifest["name"] == "one"


def test_refresh_that_fails_leaves_the_searcher_as_it_was(tmp_path: Path) -> None:
    vectors = night(tmp_path, "one", 0)
    searcher = lookalike.open(tmp_path)
    night(tmp_path, "two", 1)
    line = snapshot.read_manifest(open_store(tmp_path))["files"][0]
    (tmp_path / line["path"]).unlink()
    with pytest.raises(RequestError, match=r"missing: .* run: lookalike verify"):
        searcher.refresh()
    assert searcher.search(vectors=vectors[2], k=1)[0][0].score == pytest.approx(1)
    assert searcher.manifest["name"] == "one"


def test_a_snapshot_that_gc_removed_is_told_and_left(tmp_path: Path) -> None:
    vectors = night(tmp_path, "one", 0)
    ids = np.arange(5 << 32, (5 << 32) + 3)
    warm, cold = lookalike.open(tmp_path), lookalike.open(tmp_path)
    warm.search(vectors=vectors, k=3)
    names, found, scores = ["a"], *warm.search_vectors(vectors[:1], 2)
    night(tmp_path, "two", 1)
    removed = retention.gc(open_store(tmp_path), 1, 0, 0, now=datetime.now().timestamp() + 10).swept
    assert removed.snapshots == ["one"]
    message = rf"{tmp_path}: snapshot one was removed since .*searcher\.refresh.*lookalike\.open"
    for searcher in (warm, cold):
        for ask in (
            lambda one: one.search(vectors=vectors, k=1),
            lambda one: one.search_vectors(vectors, 1),
            lambda one: one.search([]),
            lambda one: one.rows(ids),
            lambda one: one.describe(names, found, scores),
            lambda one: one.embed([]),
        ):
            with pytest.raises(RequestError, match=message):
                ask(searcher)
        assert searcher.refresh() is True
        assert searcher.search(vectors=vectors[:1], k=1)[0][0].id
    assert warm.manifest["name"] == "two"


def test_a_file_that_went_without_its_snapshot_is_told_by_name(tmp_path: Path) -> None:
    _, vectors, manifest = make_store(tmp_path, clustered(30, 8))
    searcher = lookalike.open(tmp_path)
    for line in snapshot.files_of(manifest, "embedding"):
        (tmp_path / line["path"]).unlink()
    with pytest.raises(RequestError, match=r"cannot be read: .*\.parquet.*; run: lookalike verify"):
        searcher.search(vectors=vectors[:1], k=1)


def test_searches_beside_a_refresh_are_of_one_snapshot(tmp_path: Path) -> None:
    """Two snapshots whose rows have the same ids, other vectors and other names of their shards."""
    expected = {name: night(tmp_path, name, seed) for seed, name in enumerate(("one", "two"))}
    searcher, query = lookalike.open(tmp_path), clustered(1, 8, seed=9)
    units = {n: v / np.linalg.norm(v, axis=1, keepdims=True) for n, v in expected.items()}
    right = {n: np.sort(units[n] @ query[0] / np.linalg.norm(query))[::-1][:5] for n in units}
    stop, seen, errors = threading.Event(), set(), []

    def ask() -> None:
        try:
            while not stop.is_set():
                [found] = searcher.search(vectors=query, k=5)
                scores = [one.score for one in found]
                seen.add(next(n for n in right if np.allclose(scores, right[n], atol=1e-5)))
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    for turn in range(40):
        open_store(tmp_path).put(snapshot.CURRENT, (b"one\n", b"two\n")[turn % 2])
        searcher.refresh()
    stop.set()
    for thread in threads:
        thread.join()
    assert errors == []
    assert seen == {"one", "two"}


# --- its end ----------------------------------------------------------------------------------


def open_files(below: Path) -> set[str]:
    """Files of a folder that this process has open or mapped."""
    links = Path("/proc/self/fd").iterdir()
    found = {os.readlink(link) for link in links if link.is_symlink()}
    lines = Path("/proc/self/maps").read_text().splitlines()
    found |= {line.split(maxsplit=5)[5] for line in lines if len(line.split()) > 5}
    return {name for name in found if name.startswith(f"{below}/")}


def test_a_closed_searcher_lets_go_of_everything_and_says_so(tmp_path: Path) -> None:
    vectors = night(tmp_path, "one", 0)
    with lookalike.open(tmp_path) as searcher:
        searcher.search(vectors=vectors, k=2, where="width = 4")
        assert open_files(tmp_path)
        assert repr(searcher) == (
            f"Searcher(store={str(tmp_path)!r}, snapshot='one', rows=30, metric='cosine')"
        )
    assert open_files(tmp_path) == set()
    assert repr(searcher).endswith("rows=30, metric='cosine', closed)")
    searcher.close()  # again
    for ask in (
        lambda: searcher.search(vectors=vectors),
        lambda: searcher.search_vectors(vectors, 1),
        lambda: searcher.rows([5 << 32]),
        lambda: searcher.describe([], np.empty((0, 1)), np.empty((0, 1))),
        lambda: searcher.embed([]),
        searcher.refresh,
        searcher.__enter__,
    ):
        with pytest.raises(RequestError, match=r"closed\): open the store again: lookalike.open"):
            ask()


def test_the_block_closes_after_an_error(tmp_path: Path) -> None:
    night(tmp_path, "one", 0)
    with pytest.raises(ZeroDivisionError), lookalike.open(tmp_path) as searcher:
        raise ZeroDivisionError
    assert "closed" in repr(searcher)


def test_the_package_exports_it_and_stays_cheap() -> None:
    code = (
        "import sys, lookalike; heavy = ('faiss', 'pyarrow', 'numpy')\n"
        "assert not [name for name in heavy if name in sys.modules]\n"
        "from lookalike import Searcher, dataset, open\n"
        "assert lookalike.Searcher is Searcher and 'Searcher' in lookalike.__all__\n"
        "assert not hasattr(lookalike, 'Searchers')\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


# --- the process ------------------------------------------------------------------------------

_FORK = """
import os, signal, sys
store, picture, engine, started = sys.argv[1:]
if engine == "tensorflow":
    sys.modules["openvino"] = None  # as where it is not installed
import lookalike
if started == "imported":
    import tensorflow
searcher = lookalike.open(store)
if started == "searched":
    searcher.search(picture, k=1)
if started == "elsewhere":  # by the program itself
    import tensorflow
    tensorflow.constant(1) + 1
child = os.fork()
if not child:
    signal.alarm(60)  # which ends one that waits for ever
    vectors = searcher.search(vectors=[1.0] * searcher.dim, k=1)
    assert len(vectors) == 1
    for one in (searcher, lookalike.open(store)):
        try:
            print(one.search(picture, k=1)[0][0].score, flush=True)
        except lookalike.RequestError as error:
            print(error, flush=True)
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
if started == "searched":
    searcher.search(picture, k=1)  # the parent goes on
"""


@pytest.mark.parametrize(
    ("engine", "started"),
    [
        *(
            pytest.param("tensorflow", how, marks=pytest.mark.slow)
            for how in ("nothing", "imported", "searched", "elsewhere")
        ),
        *(("openvino", how) for how in ("nothing", "searched", "elsewhere")),
    ],
)
def test_after_a_fork_pictures_are_answered_or_refused_at_once(
    engine: str, started: str, indexed: tuple[Path, Path]
) -> None:
    if engine == "openvino":
        pytest.importorskip("openvino")
    store, folder = indexed
    arguments = [str(store), str(folder / "first" / "3.png"), engine, started]
    done = subprocess.run(
        [sys.executable, "-c", _FORK, *arguments], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 2
    if engine == "tensorflow" and started in ("searched", "elsewhere"):
        assert all("forked from one that had started TensorFlow" in line for line in lines)
    else:
        assert [float(line) for line in lines] == pytest.approx([1, 1], abs=1e-5)


_LEFT_BY_A_FORK = """
import gc, os, signal, sys
import lookalike
store, picture, how, end = sys.argv[1:]
searcher = lookalike.open(store)
searcher.search(picture, k=1)
gc.disable()
if how == "rubbish":
    searcher.itself = searcher
    del searcher
child = os.fork()
if not child:
    signal.alarm(60)  # which ends one that waits for ever
    if how == "dropped":
        del searcher
    gc.collect()
    if how == "kept":
        print(searcher.search(picture, k=1)[0][0].score)
    if end == "exit":
        sys.exit(0)
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
"""


@pytest.mark.parametrize("end", ["exit", "_exit"])
@pytest.mark.parametrize("how", ["rubbish", "dropped", "kept"])
def test_a_forked_process_may_let_go_of_a_searcher(
    how: str, end: str, indexed: tuple[Path, Path]
) -> None:
    """OpenVINO joins the threads that its models compute in, which no fork has."""
    pytest.importorskip("openvino")
    store, folder = indexed
    arguments = [str(store), str(folder / "first" / "3.png"), how, end]
    done = subprocess.run(
        [sys.executable, "-c", _LEFT_BY_A_FORK, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr


def _in_a_spawned_process(store: str, picture: str) -> float:
    return lookalike.open(store).search(picture, k=1)[0][0].score


def test_a_spawned_process_answers_as_the_message_says(indexed: tuple[Path, Path]) -> None:
    store, folder = indexed
    arguments = (str(store), str(folder / "first" / "3.png"))
    assert _in_a_spawned_process(*arguments) == pytest.approx(1, abs=1e-5)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(_in_a_spawned_process, arguments) == pytest.approx(1, abs=1e-5)


_PROCESS = """
import json, logging, os, signal, sys, threading
if sys.argv[3] == "tensorflow":
    sys.modules["openvino"] = None  # as where it is not installed
before = dict(os.environ)
def state():
    root = logging.getLogger()
    changed = sorted(name for name, value in os.environ.items() if before.get(name) != value)
    gone = sorted(set(before) - set(os.environ))
    return {
        "environment": changed + gone, "handlers": len(root.handlers), "level": root.level,
        "folder": os.getcwd(), "signals": str(signal.getsignal(signal.SIGINT)),
        "threads": sorted(one.name for one in threading.enumerate()),
    }
import numpy, lookalike
states = [state()]
searcher = lookalike.open(sys.argv[1])
searcher.search(vectors=numpy.ones(searcher.dim), k=1)
states.append(state())
searcher.search(sys.argv[2], k=1)
states.append(state())
logging.basicConfig(format="own %(message)s", level=logging.INFO, stream=sys.stdout)
print(json.dumps(states))
logging.info("log")
"""
OF_TENSORFLOW = {
    "ENABLE_RUNTIME_UPTIME_TELEMETRY",
    "HDF5_PLUGIN_PATH",
    "TF2_BEHAVIOR",
    "TPU_ML_PLATFORM",
    "TPU_ML_PLATFORM_VERSION",
    "LD_LIBRARY_PATH",
}


@pytest.mark.parametrize("engine", [pytest.param("tensorflow", marks=pytest.mark.slow), "openvino"])
def test_what_a_search_changes_in_its_process(engine: str, indexed: tuple[Path, Path]) -> None:
    """As docs/python-api.md lists it."""
    if engine == "openvino":
        pytest.importorskip("openvino")
    store, folder = indexed
    clean = {key: value for key, value in os.environ.items() if not key.startswith("TF_")}
    done = subprocess.run(
        [sys.executable, "-c", _PROCESS, str(store), str(folder / "first" / "3.png"), engine],
        cwd=ROOT,
        env=clean,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    first, last = done.stdout.splitlines()
    imported, vectors, pictures = json.loads(first)
    assert last == "own log"  # a program's own settings of the log count
    for state in (imported, vectors, pictures):
        assert (state["handlers"], state["level"], state["folder"]) == (0, 30, str(ROOT))
        assert "default_int_handler" in state["signals"]
        assert {name.split("_")[0] for name in state["threads"]} <= {"MainThread", "lookalike"}
    assert imported["environment"] == vectors["environment"] == []
    changed = set(pictures["environment"]) - OF_TENSORFLOW
    assert changed == ({"TF_FORCE_GPU_ALLOW_GROWTH"} if engine == "tensorflow" else set())
    assert done.stderr == ""


def test_python_api_lists_them() -> None:
    page = (ROOT / "docs" / "python-api.md").read_text()
    assert all(name in page for name in ("TF_FORCE_GPU_ALLOW_GROWTH", *OF_TENSORFLOW))


# --- its answers ------------------------------------------------------------------------------

ODD = {
    "tags": ["a", "b"],
    "at": datetime(2024, 12, 31, 1, 2, 3, tzinfo=timezone.utc),
    "took": timedelta(seconds=1.5),
    "raw": b"\x00\xff",
    "price": Decimal("1.10"),
    "nan": float("nan"),
    "inner": {"x": [float("inf"), None, True]},
}


def test_neighbours_are_keys_and_json_whatever_their_metadata(tmp_path: Path) -> None:
    one = Neighbour("q", 1, "/a", 0.5, 7, ("/b",), ODD)
    same = Neighbour("q", 1, "/a", 0.5, 7, ("/b",), ODD)
    other = Neighbour("q", 2, "/a", 0.5, 7, ("/b",), ODD)
    assert one == same
    assert hash(one) == hash(same)
    assert len({one, same, other}) == 2
    assert json.loads(json.dumps(one.to_dict(), allow_nan=False)) == {
        "query_uri": "q",
        "rank": 1,
        "uri": "/a",
        "score": 0.5,
        "id": 7,
        "duplicates": ["/b"],
        "tags": ["a", "b"],
        "at": "2024-12-31T01:02:03+00:00",
        "took": 1.5,
        "raw": "00ff",
        "price": "1.10",
        "nan": None,
        "inner": {"x": [None, None, True]},
    }
    plain = Neighbour("q", 1, "/a", 0.5, 7, ("/b",), {"tags": ["a"]})
    assert pickle.loads(pickle.dumps(plain)) == plain
    vectors = night(tmp_path, "one", 0)
    [found] = lookalike.open(tmp_path).search(vectors=vectors[1], k=3)
    assert len({*found, *found}) == 3
    row = json.loads(json.dumps(found[0].to_dict()))
    assert (row["rank"], row["duplicates"], row["label"]) == (1, ["/a", "/b"], "group 1")


def test_the_package_says_that_it_is_typed() -> None:
    assert (ROOT / "lookalike" / "py.typed").is_file()
    assert '"lookalike": ["py.typed"' in (ROOT / "setup.py").read_text()


PUBLIC = [
    lookalike.open,
    lookalike.dataset,
    Searcher.open,
    Searcher.search,
    Searcher.search_vectors,
    Searcher.embed,
    Searcher.describe,
    Searcher.rows,
    Searcher.refresh,
]


@pytest.mark.parametrize("function", PUBLIC, ids=lambda one: one.__qualname__)
def test_public_functions_say_what_they_raise(function: object) -> None:
    """Each is provoked here, in test_asked.py, test_living.py or test_search.py."""
    text = inspect.getdoc(function) or ""
    assert "Raises:\n    RequestError" in text or "see `lookalike.open`" in text
