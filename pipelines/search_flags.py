"""Flags of the commands that look into a store: to search, to explore, to take elsewhere."""

from __future__ import annotations

import argparse
from typing import Any

from lookalike.pipelines.flag_parts import (
    add_check,
    add_config,
    add_images,
    add_scratch,
    add_snapshot,
    add_store,
    new_command,
)


def add_search_commands(commands: Any) -> None:
    """The commands query, find, duplicates, serve and export."""
    _query(commands)
    _find(commands)
    _duplicates(commands)
    _serve(commands)
    _export(commands)


def _query(commands: Any) -> None:
    parser = new_command(commands, "query", "find the nearest indexed images to some pictures")
    parser.epilog = "with --beam, what follows -- goes to Beam as pipeline options"
    add_store(parser)
    asked = parser.add_mutually_exclusive_group(required=True)
    add_images(asked, "the pictures to search with")
    asked.add_argument(
        "--vectors",
        metavar="FILE",
        help="vectors instead: .npy (n, d), or .parquet with a column embedding",
    )
    asked.add_argument(
        "--like",
        action="extend",
        nargs="+",
        metavar="URI",
        help="images of the store instead, by the names that query prints; they are not decoded",
    )
    parser.add_argument("-k", type=int, default=10, help="neighbours per query (default 10)")
    parser.add_argument(
        "--where",
        metavar="CONDITION",
        help="only images whose metadata columns fulfil it: \"label = 'cat' and width > 500\"",
    )
    _ways(parser)
    parser.add_argument(
        "--output",
        metavar="FILE",
        help="write a row per neighbour, as .parquet or .jsonl (default: print them)",
    )
    parser.add_argument("--html", metavar="PAGE", help="write a page with thumbnails to look at")
    _thumbnails(parser)
    add_config(parser, "whose features the store must be made with, else it is refused")
    parser.add_argument(
        "--beam",
        action="store_true",
        help="answer many queries as a Beam job: on --config's runner, or here on all cores",
    )
    add_scratch(parser, "with --beam: ")
    add_check(parser)
    add_snapshot(parser)


def _thumbnails(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--thumbnails",
        choices=("auto", "never"),
        default="auto",
        help="on a terminal: small pictures too, where it is one that shows them (kitty, iTerm2, "
        "WezTerm, foot and others)",
    )


def _ways(parser: argparse.ArgumentParser) -> None:
    """How a query is asked."""
    ways = parser.add_argument_group("ways to ask")
    ways.add_argument(
        "--crop",
        metavar="X,Y,W,H",
        help="search by that part of each picture: in pixels of the upright picture, or in shares "
        "of its sides where no number is above 1",
    )
    ways.add_argument(
        "--together",
        choices=("mean", "max"),
        help="take all pictures as one query: by the mean of their vectors, or by the best score "
        "to any of them",
    )
    ways.add_argument(
        "--unlike",
        action="extend",
        nargs="+",
        metavar="SRC",
        help="pictures that the answers shall not be like; may be given several times",
    )
    ways.add_argument(
        "--weights",
        metavar="NAME=W,...",
        help="weights of the features in place of the store's: low=.3,deep=.7",
    )
    ways.add_argument(
        "--min-score",
        type=float,
        metavar="S",
        help="only neighbours with this score at least (under l2: this distance at most)",
    )
    ways.add_argument(
        "--group-by", metavar="COLUMN", help="only the best of each value of a column"
    )
    ways.add_argument(
        "--per-group", type=int, metavar="N", help="with --group-by: the best N (default 1)"
    )
    ways.add_argument(
        "--diversify",
        type=float,
        nargs="?",
        const=True,
        metavar="LAMBDA",
        help="choose the k from 10 k by maximal marginal relevance, so that they are unlike one "
        "another: from 0, diverse, to 1, near (default 0.5)",
    )
    ways.add_argument(
        "--exclude-self",
        action="store_true",
        help="leave the query's own picture out, by its name and by its content",
    )


def _find(commands: Any) -> None:
    parser = new_command(
        commands, "find", "find the pictures of a folder that are nearest to one, with no store"
    )
    parser.epilog = (
        "the folder is indexed by the shipped features when it is new or has changed; its index is "
        "kept in the cache (~/.cache/lookalike/find), so that the next answer is there at once"
    )
    parser.add_argument("picture", metavar="PICTURE", help="the picture to search with")
    parser.add_argument("folder", metavar="FOLDER", help="where to look, with all folders below")
    parser.add_argument("-k", type=int, default=10, help="how many (default 10)")
    parser.add_argument(
        "--refresh", action="store_true", help="look for changes, though there seem to be none"
    )
    parser.add_argument("--html", metavar="PAGE", help="write a page with thumbnails to look at")
    _thumbnails(parser)
    _ways(parser)
    none = ("vectors", "like", "where", "output", "config", "scratch", "snapshot", "cache")
    parser.set_defaults(beam=False, check=False, **dict.fromkeys(none))


def _duplicates(commands: Any) -> None:
    parser = new_command(
        commands, "duplicates", "find all groups of near-copies, and which picture of each to keep"
    )
    parser.epilog = (
        "a group is what a chain of near-copies connects; to keep is the picture with most pixels, "
        "then most bytes, then the first by name; nothing is ever deleted; what follows -- goes to "
        "Beam as pipeline options"
    )
    add_store(parser, "which is only read")
    parser.add_argument(
        "--threshold",
        type=float,
        metavar="T",
        help="what a pair needs to be near-copies: cosine or jaccard of at least T (default 0.97); "
        "inner_product: a product of at least T; l2: a distance of at most T (for these two it "
        "must be given)",
    )
    parser.add_argument(
        "--within", metavar="COLUMN", help="only pairs that have the same value in this column"
    )
    parser.add_argument(
        "--verify",
        choices=("geometric",),
        help="compare the original files of each group (needs lookalike[opencv]): says which are "
        "re-encoded, resized, cropped, framed, flipped, rotated or have something laid over, and "
        "keeps mere look-alikes",
    )
    parser.add_argument(
        "--output",
        metavar="FILE",
        help="write a row per picture of a group, as .parquet, .csv or .jsonl",
    )
    parser.add_argument("--html", metavar="PAGE", help="write a page of the groups to look at")
    add_config(parser, "whose runner does the work (default: here, on all cores)")
    add_scratch(parser)
    add_check(parser)
    add_snapshot(parser)


def _serve(commands: Any) -> None:
    parser = new_command(
        commands, "serve", "serve a page to explore a store, and a JSON API, until it is stopped"
    )
    parser.epilog = (
        "needs pip install 'lookalike[serve]'; a snapshot that is published meanwhile is gone to "
        "by itself; the API is described at /api/openapi.json, and in docs/serve.md"
    )
    add_store(parser)
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        help="address to listen at (default 127.0.0.1: this machine alone; others need --token)",
    )
    parser.add_argument(
        "--port", type=int, default=8765, help="port to listen at (default 8765; 0: any free one)"
    )
    parser.add_argument(
        "--token",
        metavar="T",
        help="what every request has to give: as a header `Authorization: Bearer T`, or in a "
        "browser once as /?token=T (default: the variable LOOKALIKE_TOKEN, where it is set)",
    )


def _export(commands: Any) -> None:
    parser = new_command(
        commands, "export", "write a snapshot's index or vectors for other software to read"
    )
    parser.epilog = (
        "faiss: one file for faiss.read_index, which finds the candidates that query scores, under "
        "the same ids; npy: a folder of vectors.npy and uris.parquet, in the same order; parquet: "
        "id, uri, metadata and embedding; webdataset: a folder of tar shards, which hold each "
        "picture, its columns as JSON and its vector as .npy; lance: a folder, the columns of "
        "parquet as a Lance dataset (needs pip install 'lookalike[lance]')"
    )
    add_store(parser)
    parser.add_argument(
        "--format",
        required=True,
        choices=("faiss", "npy", "parquet", "webdataset", "lance"),
        help="what to write",
    )
    parser.add_argument("out", metavar="OUT", help="the file or folder to make; nothing is there")
    add_check(parser)
    add_snapshot(parser)
