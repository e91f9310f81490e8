"""The engines of Beam that a run can be sent to, and what each of them has to be told.

What stands here are the answers to traps; what a config says, or the command line after `--`, wins.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from lookalike.cache_folder import cache_folder

_EMBEDDED = re.compile(r"\[|local(\[|$)")  # masters in a process of this machine
_FOR_EVER_S = 604800
_PARTS_PER_WORKER = 4  # partitions on Dask: so many lost with a worker are few


@dataclass(frozen=True)
class Engine:
    """One engine.

    Attributes:
        runner: Beam's name of it.
        needs: Groups of options, of each of which one must be given.
        addresses: Options that name who must answer on the network, by host and port.
        module: What must be installed on the launching machine, as it is imported.
        extra: The extra of lookalike that brings it.
        workers: The option that takes the number of workers; "" where there is none.
        options: Beam options that hold unless others are given.
    """

    runner: str
    needs: Sequence[Sequence[str]] = ()
    addresses: Sequence[str] = ()
    module: str = ""
    extra: str = ""
    workers: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)


# Every task manager or executor has a pool of workers beside it (see examples/flink).
_POOL = {"environment_type": "EXTERNAL", "environment_config": "localhost:50000"}

ENGINES: Mapping[str, Engine] = {
    "direct": Engine("FnApiRunner", options={"default_sdk_harness_log_level": "ERROR"}),
    # Else Prism's client gives up after five minutes, whatever the job does, and passes on its log.
    "prism": Engine(
        "PrismRunner",
        addresses=("job_endpoint",),
        options={"job_server_timeout": _FOR_EVER_S, "prism_log_kind": "text"},
    ),
    "dask": Engine(
        "apache_beam.runners.dask.dask_runner.DaskRunner",
        addresses=("dask_client_address",),
        module="distributed",
        extra="dask",
        workers="dask_npartitions",
    ),
    # By PIPELINED, Flink's default, the loss of a worker begins the whole job anew.
    "flink": Engine(
        "FlinkRunner",
        needs=(("flink_master", "job_endpoint"),),
        addresses=("job_endpoint", "flink_master"),
        workers="parallelism",
        options={"execution_mode_for_batch": "BATCH", **_POOL},
    ),
    "spark": Engine(
        "SparkRunner",
        needs=(("spark_master_url", "spark_rest_url", "job_endpoint"),),
        addresses=("job_endpoint", "spark_rest_url", "spark_master_url"),
        options=_POOL,
    ),
    # A process has one unit at a time, as elsewhere: each has a decoder and pictures of its own.
    "dataflow": Engine(
        "DataflowRunner",
        needs=(("project",), ("region",), ("temp_location",)),
        module="google.cloud.dataflow",
        extra="gcp",
        workers="max_num_workers",
        options={"number_of_worker_harness_threads": 1},
    ),
}


def beam_options(
    name: str, workers: int, given: Mapping[str, Any], arguments: Sequence[str]
) -> list[str]:
    """What Beam is told: flags.

    Args:
        name: Of the engine.
        workers: How many; 0 leaves it to the engine.
        given: The config's options by name.
        arguments: Beam's flags of the command line.
    """
    engine = ENGINES[name]
    told = all_options(given, arguments)
    usual: dict[str, Any] = dict(engine.options)
    if name == "prism" and (binary := find_prism()):
        usual["prism_location"] = binary
    if workers and engine.workers:
        usual[engine.workers] = workers * (_PARTS_PER_WORKER if name == "dask" else 1)
    masters = [str(told.get(name, "")) for name in ("flink_master", "spark_master_url")]
    if any(map(_EMBEDDED.match, masters)) or "environment_type" in told:
        usual = {option: value for option, value in usual.items() if option not in _POOL}
    if "dask_partition_size" in told:  # which is another way to say how many
        usual.pop("dask_npartitions", None)
    kept = {option: value for option, value in usual.items() if option not in told}
    return [f"--runner={engine.runner}", *_as_flags({**kept, **given}), *arguments]


def all_options(given: Mapping[str, Any], arguments: Sequence[str]) -> dict[str, Any]:
    """Options by name, of config and command line; the latter count."""
    told = dict(given)
    for at, argument in enumerate(arguments):
        if argument.startswith("--"):
            name, equals, value = argument[2:].partition("=")
            after = arguments[at + 1] if at + 1 < len(arguments) else ""
            told[name] = value if equals or after.startswith("--") else after
    return told


def find_prism() -> Path | None:
    """A binary of Prism's: that of LOOKALIKE_PRISM, else of the cache, if it is there.

    Where there is none, Beam looks for one in its own cache, and else downloads it.
    """
    named = os.environ.get("LOOKALIKE_PRISM")
    path = Path(named) if named else prism_in_cache()
    return path if path.is_file() else None


def prism_in_cache() -> Path:
    """Where the binary of this version of Beam lies, if it is there."""
    return cache_folder() / f"prism-{version('apache-beam')}" / "prism"


def _as_flags(options: Mapping[str, Any]) -> list[str]:
    flags = []
    for name, value in options.items():
        if isinstance(value, bool):
            flags += [f"--{name}"] if value else []
        elif isinstance(value, list):
            flags += [f"--{name}={item}" for item in value]
        else:
            flags.append(f"--{name}={value}")
    return flags
