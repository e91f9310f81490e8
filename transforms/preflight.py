"""Look whether workers see what the launching machine sees, before a run relies on it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import apache_beam as beam

from lookalike.sight import Sight, look
from lookalike.transforms.logs import LoggedFn


@beam.typehints.with_output_types(int)
@dataclass
class SeePlaces(beam.PTransform):
    """Every worker that gets a number looks; what one of them does not see ends the pipeline.

    Attributes:
        sight: What is to be seen.
        looks: How many numbers there are.
    """

    sight: Sight
    looks: int

    def expand(self, pipeline: beam.Pipeline) -> beam.PCollection[int]:
        """PBegin -> PCollection[int], as they came."""
        numbers = pipeline | "Numbers" >> beam.Create(range(self.looks), reshuffle=False)
        return numbers | "Spread" >> beam.Reshuffle() | "See" >> beam.ParDo(_SeeFn(self.sight))


class _SeeFn(LoggedFn):
    def __init__(self, sight: Sight) -> None:
        self._sight = sight

    def process(self, number: int) -> Iterator[int]:
        look(self._sight)
        yield number
