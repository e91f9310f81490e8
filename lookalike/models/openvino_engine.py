"""Models run by OpenVINO, Intel's inference library: the one module that imports it.

On a CPU it is up to twice as fast as TensorFlow for convolutional networks in float32, several
times for those that calculate in whole numbers, and a process that has no other use for TensorFlow
need not load that. `engines.choose` decides whether to use it.
"""

from __future__ import annotations

import hashlib
import sys
from contextlib import suppress
from functools import cache
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt

from lookalike.models import compiled
from lookalike.models.forks import keep_in_forks
from lookalike.models.golden import BOUND, agreement, golden_pictures
from lookalike.models.prepared import Agreement
from lookalike.models.saved_model import Model, ModelInfo


@cache
def library() -> Any:
    """Import OpenVINO without its telemetry, which would report each import and conversion."""
    if "openvino" in sys.modules or "openvino_telemetry" in sys.modules:
        import openvino

        return openvino
    # An import that finds None fails, and OpenVINO then takes a stub that sends nothing.
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
    try:
        import openvino
    finally:
        del sys.modules["openvino_telemetry"]
    return openvino


@cache
def operations() -> Any:
    """The operations that graphs are made of."""
    library()
    from openvino import opset13

    return opset13


def integers(values: Any) -> Any:
    """A constant of whole numbers, as operations take them."""
    return operations().constant(np.array(values, np.int64))


def type_of(port: Any) -> str:
    """Name of the type of an input or output."""
    return str(port.element_type.get_type_name())


def name_of(port: Any) -> str:
    """Its own name, the first of several."""
    names = sorted(port.get_names())
    return str(names[0]) if names else "(unnamed)"


def shown(port: Any) -> str:
    """An input or output as messages show it: name, type and shape."""
    return f"{name_of(port)} {type_of(port)} {port.partial_shape}"


@cache
def missing() -> str:
    """Why OpenVINO cannot be used here; empty if it can."""
    try:
        library()
    except ImportError as error:
        return str(error)
    return ""


def version() -> str:
    """Which OpenVINO this is."""
    return str(library().get_version())


@cache
def has_bf16() -> bool:
    """Whether this processor calculates in bfloat16 (AVX512_BF16, AMX, or their like on ARM)."""
    return "BF16" in library().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def convert(graph: bytes, path: Path) -> None:
    """Write a frozen graph as OpenVINO's two files: `path`, which ends in .xml, and a .bin beside.

    Args:
        graph: What `FrozenModel.graph` gave: batches of uint8 images to float32 vectors.
        path: Where to; its folder must be there.

    Raises:
        RuntimeError: OpenVINO does not know an operation of the graph.
    """
    openvino = library()
    with TemporaryDirectory(prefix="lookalike-") as work:
        frozen = Path(work) / "frozen.pb"
        frozen.write_bytes(graph)
        # float16 weights would make the files smaller and the vectors different.
        save(openvino.Core().read_model(frozen), path)


def read_folded(path: Path) -> Any:
    """Read what `convert` wrote, with constants folded: normalisation becomes part of the weights.

    OpenVINO's own converter does the same, with the same function.
    """
    from openvino._offline_transformations import apply_moc_transformations

    model = library().Core().read_model(path)
    apply_moc_transformations(model, cf=True)
    model.validate_nodes_and_infer_types()
    return model


def save(model: Any, path: Path) -> None:
    """Write a graph as `path`, which ends in .xml, and a .bin beside; its folder is made."""
    library().save_model(model, path, compress_to_fp16=False)


def on_grids(model: Any) -> bool:
    """Whether tensors of a graph lie on grids, so that it can be calculated in whole numbers."""
    return any(one.get_type_name() == "FakeQuantize" for one in model.get_ops())


class OpenVINOModel(Model):
    """A converted model, ready to be called.

    It is compiled for a picture by itself and for `batch` pictures, each when first needed (tenths
    of a second), and the last batch is filled up: OpenVINO fuses chains of small operations only
    where all shapes are known. Once it is compiled for batches, a picture by itself is filled up
    too, which takes a hundredth of the time that compiling does. In float32, a picture's vector is
    the same to the last bit whatever else is in its batch and whichever process computes it
    (measured with OpenVINO 2026.4).

    A model whose tensors lie on grids of 8 bits is calculated in whole numbers. Processors without
    instructions for that (VNNI on x86) add pairs of products in 16 bits, where large ones saturate:
    such a model's vectors are compared with the golden ones first, and where they are too far off
    it is calculated in float32, which is exact and slower.

    What is compiled, and how such a comparison ended, is kept for later processes (`compiled`).
    """

    batch = 4  # more leave a core's cache, fewer wait more often for the thread that computes

    def __init__(
        self,
        path: Path,
        info: ModelInfo,
        *,
        bf16: bool = False,
        threads: int | None = None,
        golden: npt.NDArray[np.float32] | None = None,
        exact: bool = False,
    ) -> None:
        """Load what `convert` wrote.

        Args:
            path: The .xml file.
            info: The model it was made from.
            bf16: Whether to calculate in bfloat16, where the processor can.
            threads: Of this process; None for one per core.
            golden: Vectors of the golden pictures that it should give; None takes it as it is.
            exact: Whether to calculate in float32 throughout.

        Raises:
            RuntimeError: OpenVINO cannot read it; in a call, that it cannot run it.
        """
        super().__init__(info)
        self._core, self._path, self._golden = library().Core(), path, golden
        self._options: dict[str, Any] = {
            "INFERENCE_PRECISION_HINT": "bf16" if bf16 else "f32",
            "NUM_STREAMS": 1,
            # Pinned threads of two processes would share one core, and leave the other idle.
            "ENABLE_CPU_PINNING": False,
        }
        self._exact = exact
        self._keys = self._kept_as()
        if threads is not None:  # which what is compiled does not hang on
            self._options["INFERENCE_NUM_THREADS"] = threads
        self._read: Any = None
        self.in_integers = False
        """Whether it calculates in whole numbers; calls show it."""
        if not any(map(compiled.is_there, self._keys.values())):
            self._model()
        self._lock = Lock()  # a request serves one caller at a time
        self._requests: dict[int, Any] = {}
        keep_in_forks(self)

    def _kept_as(self) -> dict[int, str]:
        """The keys under which it is kept when it is compiled, by the number of pictures."""
        digests, total = [], 0
        for file in (self._path, self._path.with_suffix(".bin")):
            with suppress(OSError):  # then it cannot be read, which is told where it is
                total += file.stat().st_size
                if total > compiled.LARGEST:
                    return {}
                digests.append(hashlib.sha256(file.read_bytes()).hexdigest())
        golden = "" if self._golden is None else hashlib.sha256(self._golden.tobytes()).hexdigest()
        return {
            size: compiled.key_of(
                engine=version(),
                model=digests,
                golden=golden,
                exact=self._exact,
                size=size,
                input_size=self.info.input_size,
                options=self._options,
            )
            for size in (1, self.batch)
        }

    def _model(self) -> Any:
        """The graph, as `convert` wrote it."""
        if self._read is None:
            self._read = self._core.read_model(self._path)
            self.in_integers = on_grids(self._read)
            if self._exact:  # as it was asked for, or as was found out before
                self._compute_exactly()
        return self._read

    @property
    def sizes(self) -> frozenset[int]:
        """How many pictures at a time it is compiled for, as far as was needed."""
        return frozenset(self._requests)

    def _run(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        with self._lock:
            alone = len(images) == 1 and (1 in self._requests or not self._requests)
            return _infer(self._request(1 if alone else self.batch), images)

    def _request(self, size: int) -> Any:
        """What runs so many pictures at a time."""
        if size not in self._requests:
            self._requests[size] = self._kept(size) or self._compile(size)
        return self._requests[size]

    def _kept(self, size: int) -> Any:
        """What was compiled before, by this process or another; None where nothing was."""
        found = compiled.read(self._keys[size]) if size in self._keys else None
        if found is None:
            return None
        self.in_integers = found.in_integers
        if not found.in_integers:
            self._compute_exactly()
        try:
            loaded = self._core.import_model(BytesIO(found.blob), "CPU", self._options)
        except RuntimeError:  # it is compiled anew, and kept in its place
            return None
        return loaded.create_infer_request()

    def _compile(self, size: int) -> Any:
        self._model().reshape([size, *self.info.input_size, 3])
        made = self._core.compile_model(self._model(), "CPU", self._options)
        request = made.create_infer_request()
        if self._golden is not None and self.in_integers:
            found = _infer(request, golden_pictures(self.info.input_size))
            if agreement(found, self._golden) < BOUND:
                self._compute_exactly()
                return self._compile(size)
        if size in self._keys:
            blob = made.export_model().getvalue()
            compiled.write(self._keys[size], compiled.Compiled(self.in_integers, blob))
        return request

    def _compute_exactly(self) -> None:
        """Keep rounding to the grids, in float32."""
        self._exact, self.in_integers = True, False
        self._options["LP_TRANSFORMS_MODE"] = False


def agreements(
    path: Path, info: ModelInfo, expected: npt.NDArray[np.float32]
) -> dict[str, Agreement]:
    """How near a converted model comes to the reference's golden vectors, by the engine's name."""
    pictures = golden_pictures(info.input_size)
    vectors = {"openvino": OpenVINOModel(path, info, golden=expected)(pictures)}
    if has_bf16():
        vectors["openvino-bf16"] = OpenVINOModel(path, info, bf16=True)(pictures)
    return {
        name: Agreement(agreement(one, expected), agreement(one, expected, lengths=True))
        for name, one in vectors.items()
    }


def _infer(request: Any, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Run pictures, as many at a time as the request takes; the last lot is filled up."""
    size = request.get_input_tensor().shape[0]
    lots = []
    for start in range(0, len(images), size):
        some = images[start : start + size]
        if len(some) < size:
            some = np.concatenate([some, np.zeros((size - len(some), *some.shape[1:]), np.uint8)])
        lots.append(request.infer([some], share_inputs=True)[0])
    return np.concatenate(lots)[: len(images)]
