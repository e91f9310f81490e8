"""`lookalike models --quantize`: another model in 8 bits, with what that costs and gains."""

from __future__ import annotations

import argparse
import random
import shutil
from collections import Counter
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import numpy.typing as npt

from lookalike import evaluation
from lookalike.errors import NotPublishedError, RequestError, one_line
from lookalike.images.decoding import Decoder
from lookalike.learning.quantised import compare
from lookalike.models import openvino_engine
from lookalike.models.engines import INSTALL
from lookalike.models.features import Feature
from lookalike.models.golden import BOUND
from lookalike.models.onnx_files import IR
from lookalike.models.openvino_engine import OpenVINOModel
from lookalike.models.preparation import models_cache
from lookalike.models.prepared import golden_vectors, graph_file, read
from lookalike.models.probing import licence_of
from lookalike.models.quantization import layers_of, quantise
from lookalike.models.resolving import FeatureConfig, resolve_features
from lookalike.outcomes import Decoded, Failed
from lookalike.pipelines.checks import check_images
from lookalike.pipelines.config import Config, load_config
from lookalike.pipelines.outputs import free_place, new_folder
from lookalike.pipelines.progress import Progress
from lookalike.pipelines.quantized import (
    CALIBRATE,
    CARD,
    Made,
    Pictures,
    as_json,
    card,
    lines,
    named,
)
from lookalike.pipelines.streams import print_as_json
from lookalike.pipelines.trial import survey
from lookalike.report.text import visible
from lookalike.sources.kinds import open_source

_COMPARE = 1000  # pictures, at most
_FEWEST = 32  # of each
_BYTES = 512 << 20  # of pictures held at once
_BATCH = 16


def run_quantize(given: argparse.Namespace, progress: Progress) -> int:
    """Make the model, measure it, and write it where it is worth it.

    Raises:
        RequestError: The request is wrong, or the model cannot be quantised.
        NotPublishedError: It is not worth it, and nothing was written.
    """
    place = free_place("--output", given.output)
    config, asked = _asked(given)
    with TemporaryDirectory(prefix="lookalike-quantize-") as scratch:
        work = Path(scratch)
        folder = work / "made"
        made = _make(given.quantize, config, asked, work, folder, progress)
        against = made.cost.reasons_against()
        written = not against or given.force
        if written:
            (folder / CARD).write_text(card(made), encoding="utf-8")
            with new_folder("--output", place) as new:
                shutil.copytree(folder, new)
        else:  # nobody will ask for it again
            shutil.rmtree(models_cache(work) / made.feature.fingerprint, ignore_errors=True)
    if given.json:
        print_as_json(as_json(made, str(place) if written else None))
    else:
        for line in [*lines(made), *([f"written: {place}"] if written else [])]:
            print(visible(line))
    if not written:
        raise NotPublishedError(
            f"not written: {place}: in 8 bits it is not worth it: {'; '.join(against)} (--force "
            "writes it all the same)"
        )
    return 0


def _asked(given: argparse.Namespace) -> tuple[Config, FeatureConfig]:
    """The feature whose model is meant, and the config that says so."""
    if not given.config:
        if not given.handle:
            raise RequestError("--quantize: which model? give a HANDLE, or --config with features")
        one = FeatureConfig("model", given.handle)
        return Config((one,)), one
    config = load_config(given.config)
    fitting = [
        one for one in config.features if given.handle in (None, one.name, one.handle)
    ]  # a handle may stand beside a config in another form: names are plain
    if len(fitting) != 1:
        names = ", ".join(one.name for one in config.features)
        raise RequestError(
            f"--config {given.config}: --quantize takes one model; name one of its features as "
            f"HANDLE: {names}"
        )
    return config, fitting[0]


def _make(
    sources: list[str],
    config: Config,
    asked: FeatureConfig,
    work: Path,
    folder: Path,
    progress: Progress,
) -> Made:
    """Quantise a model into a folder, and compare both."""
    (feature,) = resolve_features([asked], work, progress.say)
    model = openvino_engine.read_folded(_graph(work, feature))
    layers = layers_of(model, f"the model {feature.handle}")
    pictures = _read(sources, config, feature.info.input_size, progress)
    first = pictures.calibrating
    progress.say(f"calibrating on {first:,} pictures")
    starts = range(0, first, _BATCH)
    batches = (pictures.pixels[at : min(at + _BATCH, first)] for at in starts)
    quantise(model, layers, batches)
    openvino_engine.save(model, folder / IR)
    (quantised,) = resolve_features([FeatureConfig("model", str(folder))], work, lambda line: None)
    others = pictures.pixels[first:]
    progress.say(f"comparing on {len(others):,} others")
    try:
        exact, whole = (_open(work, one) for one in (feature, quantised))
        cost = compare(exact, whole, others, pictures.folders[first:])
    except RuntimeError as error:
        raise RequestError(
            f"OpenVINO cannot run {feature.handle} in 8 bits: {one_line(error)}"
        ) from error
    licence = licence_of(feature.handle, work / feature.folder)
    in_8_bits = sum(not layer.entrance for layer in layers)
    return Made(feature, licence, quantised, in_8_bits, pictures, cost)


def _graph(work: Path, feature: Feature) -> Path:
    """The model's graph for OpenVINO, which is what is quantised."""
    what = f"the model {feature.handle}"
    if feature.info.function:
        raise RequestError(f"{what} is a function of Python, which has no layers to quantise")
    if missing := openvino_engine.missing():
        raise RequestError(f"--quantize needs OpenVINO ({missing}); {INSTALL}")
    found = read(work / feature.folder, feature.prepared)
    graph = graph_file(work / feature.folder, feature.prepared)
    if found is None or graph is None:
        trouble = found.trouble if found else "it was not tried"
        raise RequestError(f"{what}: OpenVINO cannot run it, and so not in 8 bits: {trouble}")
    near = found.agreements["openvino"].cosine
    if near < BOUND:
        raise RequestError(
            f"{what}: in float32 already, OpenVINO gives it vectors with a cosine of {near:.5f} to "
            f"those of {feature.info.reference} (bound {BOUND}), and 8 bits are made of its graph"
        )
    return graph.resolve()


def _open(work: Path, feature: Feature) -> OpenVINOModel:
    """A model as workers load it."""
    folder, key = work / feature.folder, feature.prepared
    graph = graph_file(folder, key)
    if graph is None:
        raise RuntimeError(f"{folder} lacks what was made ready")
    return OpenVINOModel(graph, feature.info, golden=golden_vectors(folder, key))


def _read(
    sources: list[str], config: Config, size: tuple[int, int], progress: Progress
) -> Pictures:
    """Decode a random sample of pictures, each content once."""
    opened = [open_source(one, config.selection) for one in sources]
    check_images(opened)
    most = max(2 * _FEWEST, min(CALIBRATE + _COMPARE, _BYTES // (3 * size[0] * size[1])))
    listed = survey(chain.from_iterable(one.files(progress.say) for one in opened), most)
    files = list(listed.sample)
    random.Random(0).shuffle(files)
    pixels: list[npt.NDArray[np.uint8]] = []
    folders = []
    failed: Counter[str] = Counter()

    def done() -> int:
        return len(pixels) + failed.total()

    reading = progress.stage("read", "files", len(files), done)
    with Decoder([size], config.limits) as decoder, reading:
        for outcome in decoder.decode(files, once=True):
            if isinstance(outcome, Decoded):
                pixels.append(outcome.inputs[0])
                folders.append(evaluation.folder_label(outcome.file.uri))
            elif isinstance(outcome, Failed):
                failed[" ".join(filter(None, (outcome.status, outcome.reason)))] += 1
            else:
                failed["duplicate"] += 1
    if len(pixels) < 2 * _FEWEST:
        raise RequestError(
            f"{', '.join(sources)}: {len(pixels):,} different pictures of {len(files):,} files can "
            f"be used{named(failed)}, and it takes {2 * _FEWEST}: half to calibrate on, half to "
            "compare on"
        )
    return Pictures(np.stack(pixels), folders, failed)
