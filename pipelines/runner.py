"""Running a Beam pipeline where the config says; on this machine as several processes.

Beam's DirectRunner would choose among three engines by what the pipeline contains. Here the local
engine is named: FnApiRunner with one worker process per core, constructed with the pipeline options
(its workers get none otherwise).
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import apache_beam as beam
from apache_beam.options.pipeline_options import DirectOptions, PipelineOptions
from apache_beam.portability.api import beam_provision_api_pb2
from apache_beam.runners.portability.fn_api_runner import fn_runner
from apache_beam.runners.portability.portable_runner import JobServiceHandle

from lookalike.errors import one_line
from lookalike.pipelines.engine import EngineError, WorkerEnvironment, finish
from lookalike.pipelines.engines import beam_options

_USUAL_WORKERS = 16  # of a cluster that does not say how many it has
_NO_CODE = re.compile(r"No module named 'lookalike\b")
_NAMED = re.compile(r"[\w.]+(?:Error|Exception|Interrupt|Exit|Invalid)\b")  # a class, first


@dataclass(frozen=True)
class RunnerSpec:
    """Where and how parallel the pipelines run.

    Attributes:
        name: Of the engine, as `lookalike.pipelines.engines.ENGINES` has it.
        workers: Worker processes; 0 = one per core on the direct runner, else as the engine has.
        options: Further Beam pipeline options by name.
        arguments: Beam options as given on the command line after `--`.
    """

    name: str = "direct"
    workers: int = 0
    options: Mapping[str, Any] = field(default_factory=dict)
    arguments: Sequence[str] = ()

    @property
    def processes(self) -> int:
        """Worker processes, as far as is known: what work is cut for."""
        return self.workers or (cores() if self.here else _USUAL_WORKERS)

    @property
    def here(self) -> bool:
        """Whether workers are processes of this machine, which see what the launching one sees."""
        return self.name == "direct"

    @property
    def alone(self) -> bool:
        """Whether there is one worker, on this machine: what it does can be done here as well."""
        return self.here and self.processes == 1

    def at_most(self, tasks: int) -> RunnerSpec:
        """The same with no more processes than there are tasks."""
        if not (self.here or self.workers):
            return self
        return replace(self, workers=min(self.processes, max(1, tasks)))

    def worth(self, work: int, each: int) -> RunnerSpec:
        """The same with a process for every so much work, where their number is left open."""
        return self if self.workers else self.at_most(-(-work // each))

    @property
    def threads(self) -> int:
        """Threads per process; here all together are as many as there are cores."""
        return max(1, cores() // self.processes) if self.here else 1


def cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run(build: Callable[[beam.Pipeline], Any], spec: RunnerSpec) -> None:
    """Build and run one pipeline, and wait for its end.

    Raises:
        WorkerDiedError: A worker process was lost.
        EngineError: It did not succeed; the message is one line, the cause has the rest.
    """
    for talker in ("apache_beam", "distributed"):  # an error ends the run, and is told then
        logging.getLogger(talker).setLevel(max(logging.ERROR, logging.getLogger().level))
    options = PipelineOptions(beam_options(spec.name, spec.workers, spec.options, spec.arguments))
    pipeline = beam.Pipeline(
        runner=_local_engine(options, spec) if spec.here else None, options=options
    )
    build(pipeline)

    def execute() -> Any:
        result = pipeline.run()
        try:
            return result.wait_until_finish()
        finally:
            if spec.name == "dask":
                result.client.close()  # else one for each pipeline stays

    try:
        with _job_servers(pipeline.runner):
            state = finish(execute) if spec.here else execute()
    except EngineError:
        raise
    except Exception as error:  # in a worker it is no longer the request that is wrong
        raise _cause(error) from error
    if str(state) not in ("DONE", "None"):
        raise EngineError(f"the {spec.name} runner ended in state {state}")


def run_here(work: Callable[[], None]) -> None:
    """Do in this process what one worker would do, without a pipeline.

    Raises:
        EngineError: See `run`.
    """
    try:
        work()
    except EngineError:
        raise
    except Exception as error:
        raise _cause(error) from error


@contextmanager
def _job_servers(runner: Any) -> Iterator[None]:
    """Stop, after a pipeline, the processes that Beam started to run it.

    Beam itself does so when its own process ends in order, and the command ends at once.
    """
    servers: list[Any] = []
    if make := getattr(runner, "default_job_server", None):

        def noted(options: PipelineOptions) -> Any:
            servers.append(make(options))
            return servers[-1]

        runner.default_job_server = noted
    try:
        yield
    finally:
        for server in servers:
            server.stop()


def _cause(error: Exception) -> EngineError:
    """In one line: Beam passes a worker's error on as the text of its traceback, or as it is."""
    if _NO_CODE.search(str(error)):
        return EngineError(
            "the workers cannot import lookalike: install it on them, in this version (on Dask on "
            "the scheduler too)",
            "ModuleNotFoundError",
        )
    lines = [line for line in str(error).splitlines() if line[:1].strip()]
    named = [line for line in lines if _NAMED.match(line)]
    last = (named or lines or [""])[-1]
    last = re.sub(r" \[while running '.*", "", last)
    last = re.sub(rf"^RuntimeError: (?={_NAMED.pattern})", "", last)
    if not _NAMED.match(last):
        last = f"{_name_of(type(error))}: {last}" if last else _name_of(type(error))
    found = _NAMED.match(last)
    # Those of this library say it all.
    words = re.sub(r"^lookalike\.errors\.\w+: ", "", last)
    return EngineError(one_line(Exception(words)), found[0] if found else "")


def _name_of(kind: type) -> str:
    """As a traceback names it."""
    module = "" if kind.__module__ == "builtins" else f"{kind.__module__}."
    return module + kind.__qualname__


def _local_engine(options: PipelineOptions, spec: RunnerSpec) -> fn_runner.FnApiRunner:
    options.view_as(DirectOptions).direct_num_workers = spec.processes
    provision = fn_runner.ExtendedProvisionInfo(
        beam_provision_api_pb2.ProvisionInfo(
            pipeline_options=JobServiceHandle.encode_pipeline_options(options.get_all_options())
        )
    )
    if spec.processes == 1:
        return fn_runner.FnApiRunner(provision_info=provision)
    # Worker processes inherit these: thread pools that do not multiply.
    for pool in ("OMP_NUM", "OPENBLAS_NUM", "TF_NUM_INTRAOP", "TF_NUM_INTEROP"):
        os.environ[f"{pool}_THREADS"] = str(spec.threads)
    environment = WorkerEnvironment.from_command_string(command_string="lookalike.pipelines.worker")
    return fn_runner.FnApiRunner(default_environment=environment, provision_info=provision)
