"""`python -m benchmarks.index`: the index beside what people use, on the same vectors.

lookalike  the whole of `lookalike index --embeddings`, and a Searcher at its certificate's settings
autofaiss  in an environment of its own, which is made; memory of --code-bytes and an id per vector
wiki       Faiss IVF-PQ of as many bytes, by the guidelines of its wiki
exact      numpy's product and selection, or Faiss's flat index: the faster counts

Vectors are crops of photographs through a model. Where more are asked for than there are, all come
from a generator fitted to the real ones, and the table tells how near neighbours are in either.
Each way runs in processes of its own; builds one after another, searches in turn. Memory is that of
a way's processes at its highest, above what they have once their libraries are imported. A rival
that has not built after --patience times the project's time is ended, and counts as beaten.
"""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.command import arguments, at_least_one, chosen, columns, run, say, versions
from lookalike.errors import RequestError

_ALL = ("lookalike", "autofaiss", "wiki", "exact")


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
    add("--ways", default=",".join(_ALL), metavar="WAY,…", help=f"of {', '.join(_ALL)} (all)")
    add("--rounds", type=int, default=3, help="how often rates are taken (3)")
    add("--patience", type=float, default=4.0, help="how long a rival may build, in ours (4)")
    add("--workers", type=int, default=0, help="processes (0: one per core)")
    add("--autofaiss-env", type=Path, metavar="DIR", help="where autofaiss is or will be installed")
    add("--work", type=Path, metavar="DIR", help="for all files, tens of bytes per component")
    given = parser.parse_args(argv)
    given.ways = chosen(parser, given.ways, _ALL)
    at_least_one(parser, given, "rows real queries rounds dim")
    return run("bench-index", given, prepare, table)


def prepare(given: Namespace) -> dict[str, Any]:
    """Make the vectors, and measure."""
    with TemporaryDirectory(prefix="lookalike-bench-", dir=given.work) as folder:
        return _measure(given, Path(folder))


def _measure(given: Namespace, folder: Path) -> dict[str, Any]:
    """Everything that is to be told, as the JSON file has it."""
    from benchmarks.index import generator, way_autofaiss
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
    made = generator.Generator(real)
    if given.rows + given.queries > len(real):
        say(f"fitting a generator to {len(real):,} real vectors")
        made = generator.fit(real)
        tenths = "{:.3f}, of as many made from a tenth of them {:.3f}".format(*made.tenths)
        described = (
            f"made, each of five of {len(real):,} real ones (places of {made.width:.1f}, spread "
            f"{made.spread:.2f}; 1 - cosine to the tenth neighbour, of the real ones {tenths}), "
            f"which are {described}"
        )
    say(f"writing {given.rows:,} vectors and finding the true neighbours")
    task, true = lay_out(made, given, folder)
    named = ("rows", "queries", "recall", "rounds", "code_bytes")
    return {
        "vectors": described,
        **{name: getattr(given, name) for name in named},
        "dim": real.shape[1],
        "cores": cores(),
        "workers": given.workers or cores(),
        "versions": versions(),
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


def table(document: dict[str, Any]) -> str:
    """What was measured, and a line per way and setting."""
    from benchmarks.index.measure import K

    ways, least = document["ways"], document["recall"]
    built = [["", "build", "memory", "anonymous", "B/vector", "index"]]
    curves = [["", f"recall@{K}", "queries/s", "one by one", "setting"]]
    for way in ways.values():
        built.append(_built(document["rows"], way))
        curves += _curve(way)
    rivals = [way for name, way in ways.items() if name != "lookalike" and way["curve"]]
    return "\n".join(
        [
            f"{document['rows']:,} vectors of {document['dim']} components: {document['vectors']}",
            f"{document['queries']:,} queries held out, {document['rounds']} rounds, medians; "
            f"{document['cores']} cores, {document['workers']} processes to build with",
            ", ".join(f"{name} {value}" for name, value in document["versions"].items()),
            "",
            *columns(built, left=(0, 5)),
            *(f"not run: {reason}" for reason in document["not_run"].values()),
            "",
            *_stages(ways["lookalike"]),
            "",
            *columns(curves, left=(0, 4)),
            "",
            *(
                f"at recall@{K} {least:g}, beside {way['title']}: "
                f"{_compared(ways['lookalike'], way, least)}"
                for way in rivals
            ),
        ]
    )


def _built(rows: int, way: dict[str, Any]) -> list[str]:
    built, told = way["built"], way["built"]["told"]
    if built["failed"]:
        return [way["title"], "", "", "", "", built["failed"]]
    memory = [f"{built[name] / 2**20:,.0f} MiB" for name in ("resident", "anonymous")]
    chosen = f" ({told['chosen']})" if told.get("chosen") else ""
    each = f"{told['bytes'] / rows:,.1f}"
    return [way["title"], f"{built['seconds']:,.1f} s", *memory, each, f"{told['key']}{chosen}"]


def _curve(way: dict[str, Any]) -> list[list[str]]:
    return [
        [
            way["title"],
            f"{row['recall']:.4f}",
            f"{row['batch_rate']:,.0f}",
            f"{row['single_rate']:,.0f}",
            ", ".join(f"{name} {value}" for name, value in row["setting"].items()),
        ]
        for row in sorted(way["curve"], key=lambda row: float(row["recall"]))
    ]


def _stages(ours: dict[str, Any]) -> list[str]:
    """What took how long in the project's build, and its certificate."""
    if ours["built"]["failed"]:
        return []
    stages, certificate = (ours["built"]["told"][name] for name in ("stages", "certificate"))
    parts = ", ".join(f"{name} {seconds:,.1f} s" for name, seconds in stages.items())
    return [
        f"{ours['title']}: {parts}",
        "certified: recall@{k} {recall:.3f} ({low:.3f} to {high:.3f}) at nprobe {nprobe}, "
        "re-ranking {rerank}".format(**certificate),
    ]


def _compared(ours: dict[str, Any], way: dict[str, Any], least: float) -> str:
    """How much faster the project's search is at the recall asked for."""
    from benchmarks.index.measure import fastest

    ratios = []
    for rate in ("batch_rate", "single_rate"):
        mine, theirs = fastest(ours, least, rate), fastest(way, least, rate)
        if mine is None or theirs is None:
            return "not both reach that"
        ratios.append(mine[rate] / theirs[rate])
    return "{:.2f}x its queries/s, {:.2f}x one by one".format(*ratios)


if __name__ == "__main__":
    sys.exit(main())
