"""Training: steps, judged now and then by what is held out, and continued after any end.

What a step does depends on its number and the seed alone, and all that changes lies in one file
that is replaced whole: a run that was killed goes on from the last judgement, to the same end.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np
import numpy.typing as npt

from lookalike.learning.gathering import Pictures
from lookalike.learning.judging import precisions
from lookalike.learning.networks import Network
from lookalike.learning.objectives import PROXY_RATE, Contrast, Proxies, augment
from lookalike.learning.splitting import Split
from lookalike.learning.state import Arrays, Gains, State
from lookalike.models.quiet_tf import tf

LOGS = "logs"
# As tf.summary.scalar has it, which needs TensorBoard to be installed, to write as well as to see.
_SCALAR = tf.compat.v1.SummaryMetadata(plugin_data={"plugin_name": "scalars"})
PATIENCE = 8  # judgements without a better one, after which it ends


@dataclass(frozen=True)
class Recipe:
    """How to train.

    Attributes:
        rate: Of learning, of the network.
        kinds: In a batch.
        each: Pictures of each of them.
        area: Of a picture that a cut leaves, at least.
        averaging: What remains of the mean of the weights with each step, at the end: the mean is
            what is judged and kept.
        every: Steps between judgements, at least.
    """

    rate: float
    kinds: int
    each: int
    area: float = 0.4
    averaging: float = 0.97
    every: int = 20


RECIPES = {
    ("builtin:photo", True): Recipe(rate=5e-5, kinds=16, each=4),
    ("builtin:photo", False): Recipe(rate=5e-5, kinds=32, each=2),
    ("scratch", True): Recipe(rate=1e-3, kinds=16, each=4, area=0.7, averaging=0.95, every=50),
    ("scratch", False): Recipe(rate=1e-3, kinds=32, each=2, averaging=0.95, every=50),
}
"""By where it starts, and whether there are labels."""


@dataclass(frozen=True)
class Limits:
    """When to end: seconds of training and judging, all runs together, or steps of training."""

    seconds: float
    steps: int | None = None


@dataclass(frozen=True)
class Fitted:
    """How a training went; the network has the best weights.

    Attributes:
        best: Step that the weights are of.
        score: Their precision at k, of all that is held out.
        after: Precision of each half's queries, at the moment that is best by the other half.
        why: It ended.
    """

    steps: int
    best: int
    score: float
    after: tuple[Gains, Gains]
    seconds: float
    why: str


def fit(
    network: Network,
    pictures: Pictures,
    split: Split,
    recipe: Recipe,
    limits: Limits,
    work: Path,
    *,
    labelled: bool,
    teacher: Network | None,
    seed: int,
    say: Callable[[str], None] = lambda _: None,
) -> Fitted:
    """Train a network, from where the work folder's last run was.

    Args:
        network: Is changed.
        pictures: All of them.
        split: Which of them to learn from.
        recipe: How.
        limits: When to end.
        work: Holds the state, and logs for TensorBoard.
        labelled: Whether kinds are labels; else each picture is its own.
        teacher: The network as it was, where that knows something; None for one that does not.
        seed: Of all that is drawn.
        say: Takes a line for a person.
    """
    state, began = State.load(work), monotonic()
    objective: Proxies | Contrast
    if labelled:  # one that goes on has its proxies
        known = None if state else teacher
        objective = Proxies(_directions(known, network.dim, pictures, split, seed))
    else:
        objective = Contrast(_frozen(teacher) if teacher else None)
    trainer = _Trainer(network, recipe, objective)
    log = tf.summary.create_file_writer(str(work / LOGS))
    if state is None:
        state = State(mean=trainer.weights(), best=trainer.weights())
        _judge(trainer, pictures, split, state)
        state.current, state.seconds = trainer.arrays(), monotonic() - began
        state.save(work)
    else:
        trainer.restore(state.current)
        say(f"goes on from step {state.step:,}")
    k, compared = split.held.halves[0].k, len(split.held.halves[0].rows)
    every = max(recipe.every, compared // (recipe.kinds * recipe.each))
    while not (why := _ended(state, limits)):
        began, before = monotonic(), state.seconds
        losses: list[float] = []
        last = (state.step // every + 1) * every
        last = min(last, limits.steps) if limits.steps is not None else last
        while state.step < last and (not losses or state.seconds < limits.seconds):
            state.step += 1
            rows, kinds = split.batch(recipe.kinds, recipe.each, (seed, state.step))
            losses.append(trainer.step(pictures.take(rows), kinds, (seed, state.step)))
            part = min(recipe.averaging, (1 + state.step) / (10 + state.step))
            for mean, new in zip(state.mean, trainer.weights(), strict=True):
                mean += (1 - part) * (new - mean)
            state.seconds = before + monotonic() - began
        seen = len(losses) * recipe.kinds * recipe.each
        rate = seen / max(state.seconds - before, 1e-9)
        state.current = trainer.arrays()
        _judge(trainer, pictures, split, state)
        state.seconds = before + monotonic() - began
        state.save(work)
        scores = state.scores
        told = {
            "loss": np.mean(losses),
            f"precision at {k}": scores[-1],
            "pictures per second": rate,
        }
        with log.as_default(step=state.step):
            for name, value in told.items():
                tf.summary.write(name, tf.constant(value, tf.float32), metadata=_SCALAR)
        log.flush()
        left = max(0.0, limits.seconds - state.seconds) / 60
        say(
            f"train: step {state.step:,}, loss {np.mean(losses):.3f}, P@{k} held out "
            f"{scores[0]:.3f} -> {scores[-1]:.3f}, {rate:,.1f} pictures per second, "
            f"{left:,.1f} min left at most"
        )
    log.close()
    trainer.assign(state.best)
    scores = state.scores
    best = int(np.argmax(scores))
    after = _crossed(state.judged)
    return Fitted(state.step, state.steps[best], scores[best], after, state.seconds, why)


def _ended(state: State, limits: Limits) -> str:
    """Why it is over; "" while it is not."""
    if len(state.scores) - 1 - int(np.argmax(state.scores)) >= PATIENCE:
        return f"{PATIENCE} judgements brought nothing better"
    if limits.steps is not None and state.step >= limits.steps:
        return "all steps are done"
    return "the time is up" if state.seconds >= limits.seconds else ""


def _crossed(judged: Sequence[Sequence[Gains]]) -> tuple[Gains, Gains]:
    """Each half's precision, at the moment that the other half finds best."""
    moments = [int(np.argmax([one[half].mean() for one in judged])) for half in range(2)]
    return judged[moments[1]][0], judged[moments[0]][1]


def _judge(trainer: _Trainer, pictures: Pictures, split: Split, state: State) -> None:
    """Judge the mean weights, and keep them where they are the best so far."""
    current = trainer.weights()
    trainer.assign(state.mean)
    state.judged.append(precisions(trainer.network.vectors, trainer.network.size, pictures, split))
    state.steps.append(state.step)
    if int(np.argmax(state.scores)) == len(state.scores) - 1:
        state.best = [one.copy() for one in state.mean]
    trainer.assign(current)


def _frozen(teacher: Network) -> Callable[[Any], Any]:
    return lambda views: teacher.model(views, training=False)


def _directions(
    teacher: Network | None, dim: int, pictures: Pictures, split: Split, seed: int
) -> npt.NDArray[np.float32]:
    """Where proxies begin, (kinds, dim): at the mean of some pictures of the kind, if known."""
    if teacher is None:
        drawn = np.random.default_rng(seed).standard_normal((split.kinds, dim))
        return drawn.astype(np.float32)
    found = np.empty((split.kinds, dim), dtype=np.float32)
    most = max(1, min(8, 2000 // split.kinds))
    for kind in range(split.kinds):
        rows = split.rows[split.starts[kind] : split.starts[kind + 1]][:most]
        batch = tf.cast(tf.image.resize(pictures.take(rows), teacher.size), tf.uint8).numpy()
        found[kind] = teacher.vectors(iter([batch])).mean(axis=0)
    return found


class _Trainer:
    """A network with what its training changes."""

    def __init__(self, network: Network, recipe: Recipe, objective: Proxies | Contrast) -> None:
        self.network, self._objective = network, objective
        adam = tf.keras.optimizers.Adam
        self._optimizers = [adam(recipe.rate), adam(PROXY_RATE)]
        learned = network.model.trainable_variables, list(self._objective.variables)
        for optimizer, variables in zip(self._optimizers, learned, strict=True):
            optimizer.build(variables)
        moving = [one for one in network.model.non_trainable_variables if "moving" in one.path]
        self._weights = [*network.model.trainable_variables, *moving]
        self._all = [
            *self._weights,
            *self._objective.variables,
            *(one for optimizer in self._optimizers for one in optimizer.variables),
        ]

        def step(images: Any, kinds: Any, seed: Any) -> Any:
            views = augment(images, network.size, recipe.area, seed)
            with tf.GradientTape() as tape:
                vectors = tf.math.l2_normalize(network.model(views, training=True), 1)
                loss = self._objective.loss(vectors, kinds, views)
            gradients = tape.gradient(loss, [*learned[0], *learned[1]])
            cut = len(learned[0])
            self._optimizers[0].apply_gradients(zip(gradients[:cut], learned[0], strict=True))
            if learned[1]:
                self._optimizers[1].apply_gradients(zip(gradients[cut:], learned[1], strict=True))
            return loss

        self._step = tf.function(step, autograph=False)

    def step(self, images: Any, kinds: Any, seed: tuple[int, int]) -> float:
        """One step; returns the loss."""
        numbers = tf.constant(kinds, tf.int32), tf.constant(seed, tf.int32)
        return float(self._step(tf.constant(images), *numbers))

    def weights(self) -> Arrays:
        """Of the network: what learns, and what follows it."""
        return [np.array(one) for one in self._weights]

    def assign(self, weights: Arrays) -> None:
        """Undo `weights`."""
        for variable, value in zip(self._weights, weights, strict=True):
            variable.assign(value)

    def arrays(self) -> Arrays:
        """All that a step changes."""
        return [np.array(one) for one in self._all]

    def restore(self, arrays: Arrays) -> None:
        """Undo `arrays`."""
        for variable, value in zip(self._all, arrays, strict=True):
            variable.assign(value)
