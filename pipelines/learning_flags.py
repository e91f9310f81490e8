"""The flags of commands that try models, or learn from a store or from pictures."""

from __future__ import annotations

import argparse
from typing import Any

from lookalike.pipelines.flag_parts import add_config, add_snapshot, add_store, new_command


def add_learning_commands(commands: Any) -> None:
    """The commands models, tune, adapt and train."""
    _models(commands)
    _tune(commands)
    _adapt(commands)
    _train(commands)


def _models(commands: Any) -> None:
    parser = new_command(
        commands, "models", "list the features that ship, or try a handle and measure it"
    )
    parser.add_argument(
        "handle",
        nargs="?",
        metavar="HANDLE",
        help="builtin:<name>, python:module:function, a SavedModel, an ONNX file, an .xml of "
        "OpenVINO, an address; shows inputs, outputs, images/s of each engine, fingerprint and "
        "licence",
    )
    add_config(parser, "whose features are tried, with all that it says of them")
    parser.epilog = (
        "--quantize measures what 8 bits cost on pictures not calibrated on (cosine, P@10 by "
        "folders or the nearest neighbours found) and gain (images/s); exit status 3 if it is not "
        "worth it and nothing was written; docs/features.md says where the bounds are"
    )
    parser.add_argument(
        "--quantize",
        action="append",
        metavar="IMAGES",
        help="make a version of HANDLE, or of a feature of --config, that calculates in 8 bits, "
        "calibrated on these pictures (as --images of index; repeatable)",
    )
    parser.add_argument(
        "--output", metavar="MODEL", help="with --quantize: the folder to make, a handle for index"
    )
    parser.add_argument(
        "--force", action="store_true", help="with --quantize: write it also where not worth it"
    )


def _tune(commands: Any) -> None:
    parser = new_command(
        commands, "tune", "find the weights of a hybrid's features that fit your pictures best"
    )
    parser.epilog = (
        "the gain is measured on labels held out; exit status 3 if there is none for certain and "
        "nothing was written; index with the config embeds nothing again"
    )
    _learn(parser)
    parser.add_argument(
        "--write",
        metavar="CONFIG",
        help="write the config with the weights found, for index (default: print it)",
    )


def _adapt(commands: Any) -> None:
    parser = new_command(
        commands, "adapt", "learn a projection of the vectors that tells your pictures apart better"
    )
    parser.epilog = (
        "the gain is measured on labels held out; exit status 3 if there is none for certain and "
        "nothing was written; name the model in a config (projection: MODEL) and index again, "
        "which embeds nothing again"
    )
    _learn(parser)
    parser.add_argument(
        "--output", required=True, metavar="MODEL", help="the folder to make, for the projection"
    )
    parser.add_argument(
        "--components",
        type=int,
        metavar="N",
        help="that shall come out (default: as few of 64, 128, 256, 512 or all as cost nothing)",
    )


def _learn(parser: argparse.ArgumentParser) -> None:
    """What tune and adapt have in common."""
    add_store(parser)
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument(
        "--labels",
        metavar="folders|FILE",
        help="`folders`: an image's folder is its label; or a CSV/Parquet file: uri, label",
    )
    which.add_argument(
        "--self",
        action="store_true",
        help="without labels: a sample of the pictures is read, and altered copies of one are of "
        "its kind",
    )
    parser.add_argument(
        "--sample", type=int, metavar="N", help="with --self: pictures to read (default 300)"
    )
    parser.add_argument(
        "-k", type=int, help="precision at k (default 10; with --self the 6 copies of a picture)"
    )
    parser.add_argument(
        "--force", action="store_true", help="write what was found also where it does not help"
    )
    add_snapshot(parser)


def _train(commands: Any) -> None:
    parser = new_command(
        commands, "train", "train a network on pictures of your own, as a feature of your own"
    )
    parser.epilog = (
        "the gain is measured on labels held out, or without labels on altered copies of pictures "
        "held out; exit status 3 if there is none for certain and nothing was written; a training "
        "that was stopped goes on by the same command; the model's folder is a handle for index"
    )
    parser.add_argument(
        "--images",
        action="extend",
        nargs="+",
        required=True,
        metavar="SRC",
        help="what to learn from: whatever index takes; may be given several times",
    )
    parser.add_argument(
        "--labels",
        metavar="folders|FILE",
        help="`folders`: a picture's folder is its label; or a CSV/Parquet file: uri, label "
        "(default: none, views of one picture are alike)",
    )
    parser.add_argument(
        "--output", required=True, metavar="MODEL", help="the folder to make, for the model"
    )
    parser.add_argument(
        "--from",
        dest="start",
        choices=("builtin:photo", "scratch"),
        default="builtin:photo",
        help="where to begin: at the shipped network, or at a small one that knows nothing "
        "(default builtin:photo)",
    )
    parser.add_argument(
        "--work",
        metavar="DIR",
        help="where pictures, the state and logs for TensorBoard lie (default: MODEL.work)",
    )
    parser.add_argument(
        "--minutes",
        type=float,
        default=30,
        metavar="M",
        help="to train at most, all runs together (default 30)",
    )
    parser.add_argument("--steps", type=int, metavar="N", help="to do at most (default: no limit)")
    parser.add_argument(
        "--sample", type=int, metavar="N", help="files to read at most (default 20000)"
    )
    parser.add_argument(
        "-k", type=int, help="precision at k (default 10; without labels the 6 copies of a picture)"
    )
    parser.add_argument(
        "--seed", type=int, default=0, metavar="N", help="of all that is drawn (default 0)"
    )
    parser.add_argument(
        "--force", action="store_true", help="write the model also where it does not help"
    )
