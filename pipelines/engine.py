"""Running a Beam pipeline where the config says; on this machine as several processes.

Beam's DirectRunner would choose among three engines by what the pipeline contains. Here the local
engine is named: FnApiRunner with one worker process per core, constructed with the pipeline options
(its workers get none otherwise).
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import apache_beam as beam
from apache_beam.options.pipeline_options import DirectOptions, PipelineOptions
from apache_beam.portability.api import beam_provision_api_pb2
from apache_beam.runners.portability.fn_api_runner import fn_runner
from apache_beam.runners.portability.portable_runner import JobServiceHandle

from lookalike.pipelines.engines import beam_options
from lookalike.pipelines.local_workers import WorkerEnvironment, finish
from lookalike.pipelines.runner import EngineError, RunnerSpec, engine_error


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
        raise engine_error(error) from error
    if str(state) not in ("DONE", "None"):
        raise EngineError(f"the {spec.name} runner ended in state {state}")


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
