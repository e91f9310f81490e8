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

import json
import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.command import arguments, at_least_one, chosen, run, say, versions
from benchmarks.index.table import table
from lookalike.errors import RequestError

_ALL = ("lookalike", "autofaiss", "wiki", "exact")
_WHOLE = 2_000_000  # rows above which exact search takes a part, and the rivals must be asked for


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print the table, and write the JSON file if asked."""
    parser = arguments("benchmarks.index", __doc__)
    add = parser.add_argument
    add("--rows", type=int, default=100_000, help="vectors to index (100000)")
    add("--images", metavar="SRC", help="pictures to crop (default: drawn ones)")
    add("--model", metavar="HANDLE", default="builtin:color-texture", help="what embeds the crops")
    add("--real", type=int, default=20_000, help="crops to embed (20000)")
    add("--vectors", metavar="FILE", nargs="+", help="real ones: .npy (n, d) or Parquet")
    add("--dim", type=int, default=512, help="components, by PCA, at most (512)")
    add("--dtype", choices=("float32", "float16"), default="float32", help="in the files")
    add("--queries", type=int, default=1000, help="held-out rows to ask (1000)")
    add("--recall", type=float, default=0.95, help="to compare rates at (0.95)")
    add("--code-bytes", type=int, default=64, help="the rivals' memory (64)")
    add("--index", type=json.loads, default={}, metavar="JSON", help="options of the planner")
    add("--ways", metavar="WAY,…", help=f"of {', '.join(_ALL)} (all; above 2 million rows exact)")
    add("--rounds", type=int, default=3, help="how often rates are taken (3)")
    add("--patience", type=float, default=4.0, help="how long a rival may build, in ours (4)")
    add("--workers", type=int, default=0, help="processes (0: one per core)")
    add("--autofaiss-env", type=Path, metavar="DIR", help="where autofaiss is or will be installed")
    add("--work", type=Path, metavar="DIR", help="for all files, tens of bytes per component")
    given = parser.parse_args(argv)
    usual = _ALL if given.rows <= _WHOLE else ("exact",)
    given.ways = chosen(parser, given.ways or ",".join(usual), _ALL)
    at_least_one(parser, given, "rows real queries rounds dim")
    return run("bench-index", given, prepare, table)


def prepare(given: Namespace) -> dict[str, Any]:
    """Make the vectors, and measure."""
    with TemporaryDirectory(prefix="lookalike-bench-", dir=given.work) as folder:
        return _measure(given, Path(folder))


def _measure(given: Namespace, folder: Path) -> dict[str, Any]:
    """Everything that is to be told, as the JSON file has it."""
    from benchmarks.index import generator, match, vectors, way_autofaiss
    from benchmarks.index.measure import lay_out, measure
    from lookalike.parallel import cores

    pythons, notes = dict.fromkeys(given.ways, sys.executable), {}
    if "autofaiss" in given.ways:
        python, problem = way_autofaiss.environment(
            given.autofaiss_env or way_autofaiss.default_folder()
        )
        pythons["autofaiss"] = str(python)
        if python is None:
            notes["autofaiss"] = problem
            given.ways.remove("autofaiss")
    real, described = _real(given, folder)
    made, compared = None, None
    if given.rows + given.queries > len(real):
        say(f"fitting a generator to {len(real):,} real vectors")
        made = generator.fit(real)
        compared = match.compare(real, made)
        described = (
            f"made, each of five of {len(real):,} real ones (places of {made.width:.1f}, spread "
            f"{made.spread:.2f}), which are {described}"
        )
    # No machine holds all of very many; the rivals, where asked for, must.
    apart = given.rows > _WHOLE and not {"autofaiss", "wiki"} & set(given.ways)
    given.held = _WHOLE // 2 if apart else given.rows
    source, dim = vectors.save(folder, real, made), real.shape[1]
    del real, made
    say(f"writing {given.rows:,} vectors and finding the true neighbours")
    task, true = lay_out(source, given, folder)
    named = ("rows", "queries", "recall", "rounds", "code_bytes")
    return {
        "vectors": described,
        **{name: getattr(given, name) for name in named},
        "dim": dim,
        "cores": cores(),
        "workers": given.workers or cores(),
        "exact_rows": given.held,
        "versions": versions(),
        "match": compared,
        "not_run": notes,
        "ways": measure(given, task, true, pythons),
    }


def _real(given: Namespace, folder: Path) -> tuple[Any, str]:
    """Real vectors, ready, and what they are."""
    from benchmarks.index import vectors
    from benchmarks.index.crops import embed_crops
    from lookalike.pipelines.config import parse_config

    if given.vectors:
        paths, described = [Path(path) for path in given.vectors], ", ".join(given.vectors)
        for path in paths:
            if not path.is_file():
                raise RequestError(f"--vectors {path}: there is no such file")
    else:
        features = [{"name": "model", "handle": given.model}]
        config = parse_config({"features": features, "runner": {"workers": given.workers}}, [])
        say(f"embedding {given.real:,} crops")
        path, described = embed_crops(config, given.images, given.real, folder)
        paths, described = [path], f"{given.model} on {described}"
    return vectors.ready(vectors.load(paths), given.dim, seed=0), described


if __name__ == "__main__":
    sys.exit(main())
