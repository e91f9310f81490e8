"""Image models: SavedModel folders that turn batches of images into batches of vectors.

Loading a SavedModel and calling it executes the graph inside, which may read and write files: give
only models whose source you trust. Their hashes are in every snapshot's manifest.

`inspection.inspect` finds out how a model is called; this module calls it.
TensorFlow is imported by the first function that needs it, so this module is cheap to import.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lookalike.errors import RequestError, one_line
from lookalike.models.forks import check_process

Run = Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.float32]]
"""(n, height, width, 3) uint8 -> (n, dim) float32."""


@dataclass(frozen=True)
class ModelInfo:
    """How to call one model: found by `inspection.inspect`, and all that a worker needs to know.

    Attributes:
        input_size: Height and width of the images it is given.
        dim: Length of its vectors.
        signature: Name of the signature that is called; "" for the model's own call.
        output: Key of the output that is used; "" where there is but one, unnamed.
        input_dtype: "float32" (values in [0, 1]) or "uint8" (0 to 255).
        training: Whether the call takes `training=False`.
        pooled: Whether the output is a feature map, averaged over its height and width.
        frozen: Whether its variables can be turned into constants, which is faster.
        rewritten: Whether TensorFlow may rewrite the graph for speed. That makes convolutions a
            third faster; a shipped descriptor gains nothing by it, and would have its sums in
            another order from process to process, and so vectors that differ in the last bit.
        size_assumed: Whether `input_size` is only a default, nobody having given one.
        reference: The engine whose vectors are right by definition, for its kind of model.
        unit_range: Whether it is an ONNX model that is given values of 0 to 1 as they are.
        function: "module:name" of a function of the user's own; "" for models.
        params: Its keyword arguments, as a JSON object.
    """

    input_size: tuple[int, int]
    dim: int
    signature: str = ""
    output: str = ""
    input_dtype: str = "float32"
    training: bool = False
    pooled: bool = False
    frozen: bool = True
    rewritten: bool = True
    size_assumed: bool = False
    reference: str = "tensorflow"
    unit_range: bool = False
    function: str = ""
    params: str = ""

    def to_json(self) -> dict[str, Any]:
        """As the manifest holds it."""
        return asdict(self) | {"input_size": list(self.input_size)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> ModelInfo:
        """Undo `to_json`."""
        height, width = data["input_size"]
        return cls(**{**data, "input_size": (int(height), int(width))})


def configure_threads(intra: int) -> bool:
    """Limit the threads of each TensorFlow operation, one operation running at a time.

    Must come before this process's first operation; later, a process keeps the setting it has.

    Returns:
        Whether the process runs with that setting. (It changes speed, and rounding at most.)
    """
    from lookalike.models.quiet_tf import tf

    options = tf.config.threading
    if options.get_intra_op_parallelism_threads() == intra:
        return True
    try:
        options.set_intra_op_parallelism_threads(intra)
        options.set_inter_op_parallelism_threads(1)
    except RuntimeError:  # TensorFlow is already running
        return False
    return True


def uses_gpu() -> bool:
    """Whether TensorFlow sees a GPU, on which it then runs models by itself."""
    # TensorFlow takes seconds to load, and no machine has a GPU without these.
    if not any(Path(device).exists() for device in ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")):
        return False
    from lookalike.models.quiet_tf import tf

    return bool(tf.config.list_physical_devices("GPU"))


class Model(ABC):
    """A model ready to be called, whatever runs it."""

    batch = 16  # more no longer fit into a core's cache, where large feature maps should stay

    def __init__(self, info: ModelInfo) -> None:
        """Keep what a call is checked against."""
        self.info = info

    @abstractmethod
    def _run(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Compute the vectors of at least one image; arrays are checked by the caller."""

    def __call__(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Compute vectors; several threads may call at the same time.

        Args:
            images: (n, height, width, 3) uint8 RGB of the model's input size; n may be 0.

        Returns:
            (n, dim) float32; rows may be zero or not finite, as the model has it.
        """
        expected = (*self.info.input_size, 3)
        if images.dtype != np.uint8 or images.shape[1:] != expected:
            raise ValueError(
                f"images must be uint8 (n, {', '.join(map(str, expected))}), "
                f"not {images.dtype} {images.shape}"
            )
        if not len(images):
            return np.empty((0, self.info.dim), np.float32)
        vectors = self._run(images)
        if vectors.shape != (len(images), self.info.dim):
            raise ValueError(
                f"the model gave {vectors.shape} for {len(images)} images, "
                f"expected {(len(images), self.info.dim)}"
            )
        return vectors


class FrozenModel(Model):
    """A model run by TensorFlow, its variables frozen to constants where that is possible.

    Freezing lets TensorFlow fold and fuse operations, and needs no copy of the variables beside the
    graph. What it gains in speed depends on the model and the machine (MobileNetV2 on one core with
    TensorFlow 2.21: 2 to 5 percent); the vectors are the same to rounding.
    """

    def __init__(self, folder: Path, info: ModelInfo) -> None:
        """Load the model in `folder` to be called as `info` says.

        Raises:
            RequestError: It cannot be loaded, or is not the model that `info` describes.
        """
        super().__init__(info)
        self._pid = os.getpid()
        loaded = load(folder)
        try:
            self._function = freeze(loaded, info) if info.frozen else trace(loaded, info)
        except (TypeError, ValueError, KeyError) as error:
            raise RequestError(
                f"the model in {folder} is not the one described: {one_line(error)}"
            ) from error
        self._vectors = runner(self._function, info)
        if uses_gpu():
            self.batch = 64
        # Constants need nothing of the loaded object; variables live only as long as it does.
        self._keep = None if info.frozen else loaded

    def _run(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        check_process(self._pid)
        return self._vectors(images)

    def graph(self) -> bytes:
        """The whole way from uint8 images to vectors, as a serialized GraphDef: for a converter.

        Raises:
            ValueError: The graph needs variables or tables, which are not in it, or is too large.
        """
        if not self.info.frozen:
            raise ValueError("its graph holds resources other than variables, such as tables")
        graph: bytes = self._function.graph.as_graph_def().SerializeToString()
        return graph


def load(folder: Path) -> Any:
    """Load a SavedModel as TensorFlow's object.

    Raises:
        RequestError: It is not there, or damaged; or this process was forked from one that had
            started TensorFlow.
    """
    check_process(os.getpid())
    if not (folder / "saved_model.pb").is_file():
        raise RequestError(f"there is no saved_model.pb in {folder}")
    from lookalike.models.quiet_tf import root_log_kept, tf

    # The TF1 Hub format keeps its inference graph under the empty set of tags.
    tags: list[str] | None = [] if (folder / "tfhub_module.pb").exists() else None
    try:
        with root_log_kept():
            return tf.saved_model.load(str(folder), tags=tags)
    except Exception as error:  # damaged files surface as errors of many classes
        raise RequestError(
            f"cannot load the model in {folder}: {one_line(error)} (a file may be missing or "
            "damaged, or need a library that is not installed)"
        ) from error


def compile_vectors(loaded: Any, info: ModelInfo) -> Run:
    """Make the function from uint8 images to float32 vectors, scaling and pooling included."""
    return runner(freeze(loaded, info) if info.frozen else trace(loaded, info), info)


def runner(function: Any, info: ModelInfo) -> Run:
    """Make a traced or frozen function one from arrays to arrays."""
    from lookalike.models.quiet_tf import tf

    if info.frozen and not info.rewritten:
        return _as_it_is(function)

    def run(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        result = function(tf.constant(images))
        tensor = result[0] if isinstance(result, (list, tuple)) else result
        array: npt.NDArray[np.float32] = tensor.numpy()
        return array

    return run


def trace(loaded: Any, info: ModelInfo) -> Any:
    """Trace uint8 images to float32 vectors as one function of TensorFlow."""
    from lookalike.models.quiet_tf import tf

    def vectors(images: Any) -> Any:
        raw = outputs_of(call(loaded, info, scaled(images, info)))[info.output]
        raw = tf.cast(raw, tf.float32)
        return tf.reduce_mean(raw, axis=[1, 2]) if info.pooled else raw

    spec = tf.TensorSpec([None, *info.input_size, 3], tf.uint8, name="images")
    return tf.function(vectors, input_signature=[spec], autograph=False).get_concrete_function()


def freeze(loaded: Any, info: ModelInfo) -> Any:
    """Like `trace`, with the variables as constants.

    Raises:
        ValueError: The graph holds what cannot be a constant.
    """
    from tensorflow.python.framework import convert_to_constants

    function = convert_to_constants.convert_variables_to_constants_v2(trace(loaded, info))
    if len(function.inputs) != 1:
        raise ValueError("the graph holds resources other than variables, such as tables")
    return function


def _as_it_is(frozen: Any) -> Run:
    """Run a frozen function without rewriting its graph: a session has settings of its own."""
    from lookalike.models.quiet_tf import tf

    graph = tf.Graph()
    with graph.as_default():
        tf.graph_util.import_graph_def(frozen.graph.as_graph_def(), name="")
    config = tf.compat.v1.ConfigProto(
        intra_op_parallelism_threads=tf.config.threading.get_intra_op_parallelism_threads(),
        inter_op_parallelism_threads=tf.config.threading.get_inter_op_parallelism_threads(),
    )
    config.graph_options.rewrite_options.disable_meta_optimizer = True
    session = tf.compat.v1.Session(graph=graph, config=config)
    run: Run = session.make_callable(frozen.outputs[0].name, feed_list=[frozen.inputs[0].name])
    return run


def scaled(images: Any, info: ModelInfo) -> Any:
    """Bring uint8 images to the range of values that the model takes."""
    from lookalike.models.quiet_tf import tf

    return images if info.input_dtype == "uint8" else tf.cast(images, tf.float32) / 255.0


def call(loaded: Any, info: ModelInfo, images: Any) -> Any:
    """Call a loaded model by its signature or as it is; returns its outputs as it gives them."""
    if info.signature:
        function = loaded.signatures[info.signature]
        return function(**{next(iter(function.structured_input_signature[1])): images})
    return loaded(images, training=False) if info.training else loaded(images)


def outputs_of(structured: Any) -> dict[str, Any]:
    """Name the tensors among a call's results; a single unnamed one is ""."""
    from lookalike.models.quiet_tf import tf

    if isinstance(structured, Mapping):
        named = {str(key): value for key, value in structured.items()}
    elif isinstance(structured, (list, tuple)):
        named = {f"output_{i}": value for i, value in enumerate(structured)}
    else:
        named = {"": structured}
    return {key: value for key, value in named.items() if tf.is_tensor(value)}
