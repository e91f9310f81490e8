"""A projection behind the features: learned on a store's vectors, and applied to all of them.

z = (x @ matrix + offset), brought to unit length, where x is the features' fused vector. A folder
holds it: `projection.npy`, `projection.json` with what it belongs to, and `card.md` for people. It
is valid for the features, weights and engine that made the vectors it was learned on.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lookalike.distances import Vectors
from lookalike.errors import RequestError, one_line
from lookalike.json_text import to_json
from lookalike.store.manifest import Manifest

MATRIX, ABOUT, CARD = "projection.npy", "projection.json", "card.md"
_FORMAT = 1
_NOWHERE = 1e-5  # of the longest: what is shorter has no direction but that of rounding


@dataclass(frozen=True)
class Projection:
    """A projection, resolved.

    Attributes:
        handle: What it was asked for as: a folder.
        fingerprint: What it computes: 64 hex digits, of the matrix and of `features`.
        features: The model fingerprint of the features whose vectors it takes.
        inputs: Components of these.
        dim: Components that come out.
        folder: Where a store keeps it, relative to the store: `models/<fingerprint>`.
    """

    handle: str
    fingerprint: str
    features: str
    inputs: int
    dim: int
    folder: str

    def to_json(self) -> dict[str, Any]:
        """As the manifest has it."""
        return asdict(self)


def stored_projection(manifest: Manifest) -> Projection | None:
    """The projection of a snapshot's vectors; None where there is none."""
    found = manifest.get("projection")
    return Projection(**found) if found else None


def fingerprint_of(features: str, matrix: npt.NDArray[np.float32]) -> str:
    """Identify a projection for features of a fingerprint; matrix (inputs + 1, dim)."""
    digest = hashlib.sha256(f"projection-{_FORMAT} {features} {matrix.shape}".encode())
    digest.update(np.ascontiguousarray(matrix, dtype="<f4").tobytes())
    return digest.hexdigest()


def save(
    folder: Path, features: str, matrix: npt.NDArray[np.float32], card: str, learned: Any
) -> Projection:
    """Write a projection into a folder, which is made; what marks it whole is written last.

    Args:
        folder: Where to.
        features: The model fingerprint of the features whose vectors it takes.
        matrix: (inputs + 1, dim); the last row is the offset.
        card: For people.
        learned: How it was learned, as JSON.
    """
    folder.mkdir(parents=True, exist_ok=True)
    fingerprint = fingerprint_of(features, matrix)
    about = {
        "format": _FORMAT,
        "fingerprint": fingerprint,
        "features": features,
        "inputs": len(matrix) - 1,
        "dim": matrix.shape[1],
        "learned": learned,
    }
    (folder / ABOUT).unlink(missing_ok=True)
    np.save(folder / MATRIX, np.ascontiguousarray(matrix, dtype="<f4"))
    (folder / CARD).write_text(card, encoding="utf-8")
    (folder / ABOUT).write_text(to_json(about, indent=1) + "\n", encoding="utf-8")
    return open_folder(str(folder))


def open_folder(handle: str) -> Projection:
    """The projection in a folder.

    Raises:
        RequestError: There is none, it cannot be read, or it is not what it says.
    """
    folder = Path(handle)
    if not (folder / ABOUT).is_file():
        raise RequestError(
            f"projection {handle}: no such model (a folder with {ABOUT}); `lookalike adapt` "
            "makes one"
        )
    try:
        about = json.loads((folder / ABOUT).read_bytes())
        if about["format"] != _FORMAT:
            raise RequestError(
                f"projection {handle}: has format {about['format']}, this lookalike reads "
                f"{_FORMAT}; use the version that made it, or learn it again"
            )
        fingerprint, features = str(about["fingerprint"]), str(about["features"])
        matrix = read_matrix(folder)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RequestError(
            f"projection {handle}: cannot be read: {one_line(error)}; learn it again"
        ) from error
    found = fingerprint_of(features, matrix)
    if found != fingerprint:
        raise RequestError(
            f"projection {handle}: {ABOUT} says fingerprint {fingerprint}, its files have {found}; "
            "they were changed: learn it again"
        )
    inputs, dim = len(matrix) - 1, matrix.shape[1]
    return Projection(handle, fingerprint, features, inputs, dim, f"models/{fingerprint}")


def read_matrix(folder: Path) -> npt.NDArray[np.float32]:
    """(inputs + 1, dim) float32, finite.

    Raises:
        ValueError: It is something else.
        OSError: It cannot be read.
    """
    matrix: npt.NDArray[np.float32] = np.load(folder / MATRIX, allow_pickle=False)
    if matrix.ndim != 2 or matrix.dtype != np.float32 or len(matrix) < 2 or not matrix.size:
        raise ValueError(f"{MATRIX} has {matrix.dtype} of shape {matrix.shape}")
    if not np.isfinite(matrix).all():
        raise ValueError(f"{MATRIX} has values that are not finite")
    return matrix


def project(matrix: npt.NDArray[np.float32], vectors: Vectors) -> Vectors:
    """Project unit rows (n, inputs) to unit rows (n, dim); rows of zeros stay zero.

    A row at the centre has no direction; it gets that of the first axis, so that none is lost.
    """
    out = vectors @ matrix[:-1] + matrix[-1]
    norms = np.sqrt(np.einsum("ij,ij->i", out, out, dtype=np.float64))
    out[norms < _NOWHERE] = np.eye(1, out.shape[1], dtype=np.float32)
    norms[norms < _NOWHERE] = 1
    found: Vectors = (out / norms[:, None]).astype(np.float32)
    found[~vectors.any(axis=1)] = 0
    return found
