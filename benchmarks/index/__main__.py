"""`python -m benchmarks.index`: the index beside what people use, on the same vectors.

lookalike  the whole of `lookalike index --embeddings`, and a Searcher at its certificate's settings
autofaiss  in an environment of its own, which is made; memory of --code-bytes and an id per vector
wiki       Faiss IVF-PQ of as many bytes, by the guidelines of its wiki
exact      numpy's product and selection, or Faiss's flat index: the faster counts

Vectors are crops of photographs through a model. Where more are asked for than there are, all come
from a generator fitted to the real ones, and the table shows how like them they are. Each way runs
in processes of its own; builds one after another, searches in turn. Memory is that of a way's
processes at its highest, above what they have once their libraries are imported. A rival that has
not built after --patience times the project's time is ended, and counts as beaten.
"""

from __future__ import annotations

import argparse
import json
import logging
import platform
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from lookalike.errors import RequestError

_LIBRARIES = ("faiss-cpu", "numpy", "pyarrow", "apache-beam")
_ALL = ("lookalike", "autofaiss", "wiki", "exact")
_WHOLE = 2_000_000  # rows above which exact search takes a part, and the rivals must be asked for


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print the table, and write the JSON file if asked."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.index",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--rows", type=int, default=100_000, help="vectors to index (100000)")
    parser.add_argument("--images", metavar="SRC", help="pictures to crop (default: drawn ones)")
    parser.add_argument("--model", metavar="HANDLE", default="builtin:color-texture",
                        help="what embeds the crops (%(default)s)")  # fmt: skip
    parser.add_argument("--real", type=int, default=20_000, help="crops to embed (20000)")
    parser.add_argument("--vectors", metavar="FILE", nargs="+",
                        help="real vectors instead of crops: .npy (n, d) or Parquet")  # fmt: skip
    parser.add_argument("--dim", type=int, default=512, help="components, by PCA, at most (512)")
    parser.add_argument("--dtype", choices=("float32", "float16"), default="float32",
                        help="what the vectors' files hold (float32)")  # fmt: skip
    parser.add_argument("--queries", type=int, default=1000, help="held-out rows to ask (1000)")
    parser.add_argument("--recall", type=float, default=0.95, help="to compare rates at (0.95)")
    parser.add_argument("--code-bytes", type=int, default=64, help="the rivals' memory (64)")
    parser.add_argument("--index", type=json.loads, default={}, metavar="JSON",
                        help="for the planner: '{\"code_bytes\": 64}'")  # fmt: skip
    parser.add_argument("--ways", metavar="WAY,…", help=f"beside lookalike, of {', '.join(_ALL)} "
                        "(all; above 2 million rows exact)")  # fmt: skip
    parser.add_argument("--rounds", type=int, default=3, help="how often rates are taken (3)")
    parser.add_argument("--patience", type=float, default=4.0, metavar="TIMES",
                        help="how long a rival may build, in times of ours (4)")  # fmt: skip
    parser.add_argument("--workers", type=int, default=0, help="processes (0: one per core)")
    parser.add_argument("--autofaiss-env", type=Path, metavar="DIR", help="where autofaiss is or "
                        "will be installed")  # fmt: skip
    parser.add_argument("--work", type=Path, metavar="DIR", help="for all files, tens of bytes per "
                        "component and row (default: a temporary folder)")  # fmt: skip
    parser.add_argument("--json", metavar="FILE", help="write all numbers here")
    given = parser.parse_args(argv)
    chosen = given.ways or ",".join(_ALL if given.rows <= _WHOLE else ("exact",))
    asked = [way for way in chosen.split(",") if way]
    if unknown := [way for way in asked if way not in _ALL]:
        parser.error(f"--ways knows {', '.join(_ALL)}, not {', '.join(unknown)}")
    if min(given.rows, given.real, given.queries, given.rounds, given.dim) < 1:
        parser.error("--rows, --real, --queries, --rounds and --dim must be at least 1")
    logging.getLogger().setLevel(logging.ERROR)  # Beam talks while it is imported
    from benchmarks.index.table import table
    from benchmarks.launch import WayError

    ways = tuple(way for way in _ALL if way == "lookalike" or way in asked)
    try:
        with TemporaryDirectory(prefix="lookalike-bench-", dir=given.work) as folder:
            document = _measure(given, ways, Path(folder))
    except RequestError as error:
        print(f"bench-index: {error}", file=sys.stderr)
        return 2
    except WayError as error:
        print(f"bench-index: {error}", file=sys.stderr)
        return 1
    print(table(document))
    if given.json:
        Path(given.json).write_text(json.dumps(document, indent=1) + "\n")
    return 0


def _measure(given: argparse.Namespace, ways: tuple[str, ...], folder: Path) -> dict[str, Any]:
    """Everything that is to be told, as the JSON file has it."""
    from benchmarks.index import generator, match, rival, vectors
    from benchmarks.index.measure import Plan, lay_out, measure
    from lookalike.pipelines.runner import cores

    pythons, notes = dict.fromkeys(ways, sys.executable), {}
    if "autofaiss" in ways:
        python, problem = rival.environment(given.autofaiss_env or rival.default_folder())
        if python is None:
            notes["autofaiss"] = problem
            ways = tuple(way for way in ways if way != "autofaiss")
        else:
            pythons["autofaiss"] = str(python)
    real, described = _real(given, folder)
    made, compared = None, None
    if given.rows + given.queries > len(real):
        _say(f"fitting a generator to {len(real):,} real vectors")
        made = generator.fit(real)
        compared = match.compare(real, made)
        described = (
            f"made, each of five of {len(real):,} real ones (places of {made.width:.1f}, spread "
            f"{made.spread:.2f}), which are {described}"
        )
    # No machine holds all of very many; the rivals, where asked for, must.
    part = _WHOLE // 2 if given.rows > _WHOLE and not {"autofaiss", "wiki"} & set(ways) else 0
    plan = Plan(
        given.rows, given.queries, ways, given.rounds, given.code_bytes, given.dtype,
        given.workers, cores(), part, given.index, given.patience, given.recall,
    )  # fmt: skip
    source = vectors.save(folder, real, made)
    dim = real.shape[1]
    del real, made
    _say(f"writing {given.rows:,} vectors and finding the true neighbours")
    task, true = lay_out(source, plan, folder)
    return {
        "vectors": described, "rows": plan.rows, "dim": dim, "queries": plan.queries,
        "recall": given.recall, "rounds": plan.rounds, "cores": plan.cores,
        "workers": plan.workers or plan.cores, "code_bytes": plan.code_bytes,
        "exact_rows": plan.array_rows or plan.rows, "versions": _versions(), "match": compared,
        "not_run": notes, "ways": measure(plan, task, true, pythons, _say),
    }  # fmt: skip


def _real(given: argparse.Namespace, folder: Path) -> tuple[Any, str]:
    """Real vectors, ready, and what they are."""
    from benchmarks.index import vectors
    from lookalike.pipelines.config import parse_config

    if given.vectors:
        paths, described = [Path(path) for path in given.vectors], ", ".join(given.vectors)
        for path in paths:
            if not path.is_file():
                raise RequestError(f"--vectors {path}: there is no such file")
    else:
        from benchmarks.index.crops import embed_crops

        config = parse_config(
            {"features": [{"name": "model", "handle": given.model}],
             "runner": {"workers": given.workers}}, [],
        )  # fmt: skip
        _say(f"embedding {given.real:,} crops")
        path, described = embed_crops(config, given.images, given.real, folder)
        paths, described = [path], f"{given.model} on {described}"
    return vectors.ready(vectors.load(paths), given.dim, seed=0), described


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _versions() -> dict[str, str]:
    found = {name: version(name) for name in _LIBRARIES}
    return {"python": platform.python_version(), "machine": platform.platform(), **found}


if __name__ == "__main__":
    sys.exit(main())
