"""How far a training is, in one file that is replaced whole."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lookalike.store.durable import write_bytes
from lookalike.store.files import npz_bytes

STATE = "state.npz"

Arrays = list[npt.NDArray[Any]]
Gains = npt.NDArray[np.float64]


@dataclass
class State:
    """How far it is; `best` and `mean` are of the network's variables, `current` of all."""

    step: int = 0
    seconds: float = 0.0
    steps: list[int] = field(default_factory=list)
    judged: list[list[Gains]] = field(default_factory=list)
    current: Arrays = field(default_factory=list)
    mean: Arrays = field(default_factory=list)
    best: Arrays = field(default_factory=list)

    @property
    def scores(self) -> list[float]:
        """Mean precision over all queries, of each judgement."""
        return [float(np.concatenate(halves).mean()) for halves in self.judged]

    def save(self, work: Path) -> None:
        """Replace the file."""
        arrays: dict[str, Any] = {
            "step": np.int64(self.step),
            "seconds": np.float64(self.seconds),
            "steps": np.array(self.steps, dtype=np.int64),
        }
        for half in range(2):
            arrays[f"judged-{half}"] = np.stack([halves[half] for halves in self.judged])
        for name in ("current", "mean", "best"):
            arrays |= {f"{name}-{i:04d}": one for i, one in enumerate(getattr(self, name))}
        write_bytes(work, STATE, npz_bytes(**arrays))

    @classmethod
    def load(cls, work: Path) -> State | None:
        """What `save` wrote; None where nothing was."""
        if not (work / STATE).is_file():
            return None
        with np.load(work / STATE, allow_pickle=False) as arrays:
            pairs = zip(arrays["judged-0"], arrays["judged-1"], strict=True)
            named = {
                name: [arrays[key] for key in sorted(arrays.files) if key.startswith(f"{name}-")]
                for name in ("current", "mean", "best")
            }
            return cls(
                int(arrays["step"]),
                float(arrays["seconds"]),
                arrays["steps"].tolist(),
                [list(pair) for pair in pairs],
                **named,
            )
