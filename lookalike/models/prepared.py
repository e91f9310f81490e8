"""Models made ready: everything about one that takes TensorFlow to find out, in files beside it.

    models/<fingerprint>/
      saved_model.pb, variables/, assets/      the model as it was given, or
      model.onnx, preprocessing.json           such a model, or
      model.xml, model.bin, preprocessing.json one in OpenVINO's format (`onnx_files`)
      prepared/<key>.json                      how it is called, how near each engine comes
      prepared/<key>.npy                       the reference's vectors of the golden pictures
      prepared/<key>.xml, <key>.bin            the same graph for OpenVINO, where it can run it

The key stands for what a configuration may leave to be found out: signature, output, input size.
A process that has these files needs no TensorFlow to embed. They are made in the cache of the
launching machine, once for each model, and copied into the store with it; a model without them
(stores of older versions) is run by TensorFlow.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lookalike.models.onnx_files import PREPARED
from lookalike.models.saved_model import ModelInfo

FOLDER = PREPARED
_VERSION = 1  # of what these files hold
_SUFFIXES = (".npy", ".bin", ".xml", ".json")  # the last is there once the others are


@dataclass(frozen=True)
class Agreement:
    """How near an engine's vectors are to the reference's on the golden pictures.

    Attributes:
        cosine: Lowest cosine.
        with_lengths: The lower of that and the lowest ratio of two lengths.
    """

    cosine: float
    with_lengths: float


@dataclass(frozen=True)
class Prepared:
    """What is known of a model.

    Attributes:
        openvino: Version of OpenVINO that the model was converted with; "" where there is none.
        agreements: By the name of an engine; those that can run it on the machine that tried.
        trouble: Why OpenVINO cannot run it, in its own words.
    """

    info: ModelInfo
    openvino: str = ""
    agreements: Mapping[str, Agreement] = field(default_factory=dict)
    trouble: str = ""

    def to_json(self) -> dict[str, Any]:
        """As the file holds it."""
        agreements = {name: vars(one) for name, one in self.agreements.items()}
        return {
            "info": self.info.to_json(),
            "openvino": self.openvino,
            "agreements": agreements,
            "trouble": self.trouble,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Prepared:
        """Undo `to_json`."""
        agreements = {name: Agreement(**one) for name, one in data["agreements"].items()}
        info = ModelInfo.from_json(data["info"])
        return cls(info, data["openvino"], agreements, data["trouble"])


def key_of(signature: str | None, output: str | None, input_size: tuple[int, int] | None) -> str:
    """The key of a model's files, for what a configuration says of it: 16 hex digits."""
    asked = [_VERSION, signature, output, input_size and [*input_size]]
    return hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:16]


def card(key: str) -> str:
    """The file that says what is known of a model, relative to its folder."""
    return f"{FOLDER}/{key}.json"


def read(folder: Path, key: str) -> Prepared | None:
    """What is known of the model in a folder; None where it was not made ready there."""
    path = folder / card(key)
    if not path.is_file():
        return None
    return Prepared.from_json(json.loads(path.read_text(encoding="utf-8")))


def files(folder: Path, key: str) -> list[str]:
    """The files of a model made ready, relative to its folder; the last one completes them."""
    names = [f"{FOLDER}/{key}{suffix}" for suffix in _SUFFIXES]
    return [name for name in names if key and (folder / name).is_file()]


def belongs(name: str, key: str) -> bool:
    """Whether a file of a model's folder, by its relative name, is of what `key` stands for."""
    return not name.startswith(f"{FOLDER}/") or name.startswith(f"{FOLDER}/{key}.")


def graph_file(folder: Path, key: str) -> Path | None:
    """The model for OpenVINO, if it is there."""
    path = folder / FOLDER / f"{key}.xml"
    return path if key and path.is_file() else None


def golden_vectors(folder: Path, key: str) -> npt.NDArray[np.float32]:
    """The reference's vectors of the golden pictures: (16, dim) float32."""
    vectors: npt.NDArray[np.float32] = np.load(folder / FOLDER / f"{key}.npy", allow_pickle=False)
    return vectors
