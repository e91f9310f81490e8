"""Training as one task: from the samples' files to a template in the store."""

from __future__ import annotations

from dataclasses import dataclass

from lookalike.exact_neighbours import ExactNeighbours
from lookalike.ivf.drawing import Draw, Drawn
from lookalike.ivf.encoding import fitness_of
from lookalike.ivf.spec import IndexSpec
from lookalike.ivf.template import Template, write_template
from lookalike.ivf.train import train
from lookalike.store.attempts import Record, finished, recorded
from lookalike.store.objects import Store

MEASURED_ROWS = 4096  # on which a template's error is measured, of rows that it was not trained on


@dataclass(frozen=True)
class TrainTask:
    """The template to train; paths are relative to the store.

    Attributes:
        spec: As planned.
        samples: Records of the tasks that drew samples, of which the last is to be trained on.
        queries: The truth's file: its queries are held out.
        done: The record.
        number: Of the task.
    """

    spec: IndexSpec
    samples: tuple[str, ...]
    queries: str
    done: str
    number: int = 0

    @property
    def memory(self) -> int:
        """Bytes that the task needs: the rotated sample twice, and blocks."""
        spec = self.spec
        return 8 * spec.train_rows * spec.rotation_dim + 2 * spec.template_bytes() + (1 << 30)


@recorded
def train_template(task: TrainTask, store: Store) -> Record:
    """Train, commit what came of it and, last, the record, which is returned.

    The record holds `template` (its name), `files` (lines for a manifest) and `training`. Of
    several attempts the first one's record counts (see `store.attempts`).
    """
    spec = task.spec
    held_out = ExactNeighbours.from_bytes(store.read_bytes(task.queries))
    records = finished(store, task.samples)
    wanted = Draw(spec.seed, spec.train_rows)
    last = len(records[0]["drawn"]) - 1 if records else 0
    sample = Drawn(store, records, last, wanted, spec.dim, held_out.query_ids)
    data, training = train(spec, sample)
    if spec.kind != "exact":
        measured = fitness_of(Template(data, spec), held_out.queries, MEASURED_ROWS)
        training["held_out_error"] = measured.measures()["quantisation_error"]
        training["held_out_standard_error"] = measured.standard_error()
    name, paths = write_template(store, spec, data, training)
    files = [{**store.record(path).to_json(), "kind": "template"} for path in paths]
    return {"template": name, "files": files, "training": training}
