"""What an ONNX model expects of a picture, and what is made of what it gives.

An ONNX file says what its input's shape is, but not which range of values it was trained on. That
comes from a `preprocessor_config.json` beside it, as Hugging Face keeps it with every image model,
or from the configuration, whose keys go before the file's.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lookalike.errors import RequestError, one_line

SETTLED = "preprocessing.json"
"""File beside a gathered model that says what was settled on."""

PROCESSOR = "preprocessor_config.json"
LAYOUTS = ("NCHW", "NHWC")
CHANNELS = ("rgb", "bgr")
POOLINGS = ("mean", "cls", "max", "none")
OPTIONS = ("mean", "std", "rescale", "layout", "channels", "pooling", "crop")
"""Keys of a feature that only ONNX models take."""

_NUMBER = (int, float)


@dataclass(frozen=True)
class Preprocessing:
    """From pictures to a model's input: `(value * rescale - mean) / std`, values being 0 to 255.

    Attributes:
        rescale: Factor of the values.
        mean: Per channel, in the order that the model takes them.
        std: Per channel.
        channels: One of `CHANNELS`, the order that the model takes.
        layout: One of `LAYOUTS`; "" where the input's shape tells.
        pooling: One of `POOLINGS`; "" where the output's shape tells.
        crop: Share of a picture's height and width, about its middle, that the model is given.
        input_size: Height and width that the model takes; None where its input's shape tells.
    """

    rescale: float = 1 / 255
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    channels: str = "rgb"
    layout: str = ""
    pooling: str = ""
    crop: float = 1.0
    input_size: tuple[int, int] | None = None

    def to_json(self) -> str:
        """As the file beside the model holds it; equal values give equal text."""
        return json.dumps(asdict(self), sort_keys=True) + "\n"

    @classmethod
    def read(cls, path: Path) -> Preprocessing:
        """Undo `to_json`."""
        return cls(**checked(json.loads(path.read_text(encoding="utf-8")), str(path)))


def settle(
    folder: Path, options: Mapping[str, Any], input_size: tuple[int, int] | None
) -> tuple[Preprocessing, bool]:
    """Settle on a preprocessing: from what lies beside a model, and the configuration before it.

    A processor's file counts in the model's folder, or in the one above a folder `onnx`, which is
    where exports to Hugging Face have it.

    Returns:
        The preprocessing, and whether anything says what range of values the model takes.

    Raises:
        RequestError: A file or a value cannot be understood.
    """
    above = [folder.parent] if folder.name == "onnx" else []
    beside: dict[str, Any] = {}
    if (folder / SETTLED).is_file():
        beside = asdict(Preprocessing.read(folder / SETTLED))
    else:
        paths = [place / PROCESSOR for place in (folder, *above)]
        for path in [one for one in paths if one.is_file()][:1]:
            beside = of_processor(path)
    given = {**beside, **checked(options, "features")}
    if input_size:
        given["input_size"] = input_size
    return Preprocessing(**given), bool({"mean", "std", "rescale"} & given.keys())


def checked(options: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Check options, and give them the types of `Preprocessing`.

    Raises:
        RequestError: One is unknown, or its value is none that it can have.
    """
    result: dict[str, Any] = {}
    for name, value in options.items():
        if name in ("mean", "std"):
            result[name] = _three(f"{where}: {name}", value, positive=name == "std")
        elif name in ("rescale", "crop"):
            highest = 1.0 if name == "crop" else math.inf
            if not _is_number(value) or not 0 < value <= highest:
                rule = "a number above 0" + (" and up to 1" if name == "crop" else "")
                raise RequestError(f"{where}: {name} needs {rule}, got {value!r}")
            result[name] = float(value)
        elif name in ("layout", "channels", "pooling"):
            choices = {"layout": LAYOUTS, "channels": CHANNELS, "pooling": POOLINGS}[name]
            if value not in choices and not (value == "" and name != "channels"):
                raise RequestError(
                    f"{where}: {name} needs one of {', '.join(choices)}, got {value!r}"
                )
            result[name] = value
        elif name == "input_size":
            result[name] = value and (int(value[0]), int(value[1]))
        else:
            raise RequestError(f"{where}: there is no {name!r}; an ONNX model takes {_listed()}")
    return result


def of_processor(path: Path) -> dict[str, Any]:
    """Read a `preprocessor_config.json`: the fields of `Preprocessing` that it gives.

    Its sizes tell the model's input size. That it cuts out the middle of a picture, and how it
    resizes, is left aside: for search the whole picture counts, stretched to the input.

    Raises:
        RequestError: It is no such file, or says what is not understood.
    """
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise RequestError(f"cannot read {path}: {one_line(error)}") from error
    if not isinstance(raw, dict):
        raise RequestError(f"{path} must hold a JSON object, not {type(raw).__name__}")
    if raw.get("rescale_offset"):
        raise RequestError(
            f"{path}: rescale_offset is not understood; move the file away, and give the feature "
            "mean, std and rescale: (value * rescale - mean) / std"
        )
    found: dict[str, Any] = {"rescale": 1.0}
    if raw.get("do_rescale", True) is not False:
        found["rescale"] = raw.get("rescale_factor", 1 / 255)
    if raw.get("do_normalize", "image_mean" in raw):
        for name, key in (("mean", "image_mean"), ("std", "image_std")):
            if raw.get(key) is None:
                raise RequestError(
                    f"{path}: it has do_normalize and no {key}; give the feature mean and std"
                )
            found[name] = raw[key]
    if raw.get("do_flip_channel_order"):
        found["channels"] = "bgr"
    found = checked(found, str(path))
    size = _size(path, raw)
    return found | ({"input_size": size} if size else {})


def _size(path: Path, raw: Mapping[str, Any]) -> tuple[int, int] | None:
    """The input's size: of the crop where there is one, else of the resized picture."""
    if raw.get("crop_size") is not None and raw.get("do_center_crop", True):
        value = raw["crop_size"]
    elif raw.get("do_resize", True):
        value = raw.get("size")
    else:
        return None
    if isinstance(value, Mapping):
        if "shortest_edge" in value:
            value = value["shortest_edge"]
        elif "height" in value and "width" in value:
            value = [value["height"], value["width"]]
        else:
            return None  # such as a longest edge: pictures of many sizes
    pair = [value, value] if isinstance(value, int) else value
    if pair is None:
        return None
    if (
        not isinstance(pair, list)
        or len(pair) != 2
        or not all(isinstance(side, int) and 0 < side <= 8192 for side in pair)
    ):
        raise RequestError(f"{path}: its size is not understood: {value!r}")
    return pair[0], pair[1]


def _three(where: str, value: Any, *, positive: bool) -> tuple[float, float, float]:
    values = [value] * 3 if _is_number(value) else value
    if (
        not isinstance(values, (list, tuple))
        or len(values) != 3
        or not all(_is_number(one) and (one > 0 or not positive) for one in values)
    ):
        rule = "a number, or three (one per channel)" + (", above 0" if positive else "")
        raise RequestError(f"{where} needs {rule}, got {value!r}")
    return float(values[0]), float(values[1]), float(values[2])


def _is_number(value: Any) -> bool:
    return isinstance(value, _NUMBER) and not isinstance(value, bool) and math.isfinite(value)


def _listed() -> str:
    return ", ".join(OPTIONS)
