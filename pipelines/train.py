"""`lookalike train`: a network trained or fine-tuned on pictures of one's own."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lookalike import __version__, evaluation
from lookalike.errors import NotPublishedError, RequestError
from lookalike.images.limits import ImageLimits
from lookalike.json_text import to_json
from lookalike.learning.altered import COPIES
from lookalike.learning.gathering import Pictures, Sample, draw, gather
from lookalike.learning.held_out import Gain, gain_of
from lookalike.learning.splitting import Split, split
from lookalike.learning.state import STATE
from lookalike.pipelines.checks import check_images
from lookalike.pipelines.outputs import free_place, new_folder, refusal
from lookalike.pipelines.progress import Progress, duration
from lookalike.pipelines.streams import print_as_json
from lookalike.report.text import visible
from lookalike.sources.kinds import open_source
from lookalike.store.durable import read_json, remove_tree, write_json
from lookalike.store.locks import hold

SIDE = 256  # pixels that pictures are kept at: networks are shown cuts of them
PICTURES = 20_000  # read by default: 4 GB in the work folder
_REQUEST, _KNOWN = "request.json", {"request.json", "pictures", STATE, "logs", "runs"}
_COMPARED = {
    "builtin:photo": ("builtin:photo",),
    "scratch": ("builtin:photo", "builtin:color-texture", "builtin:shape"),
}  # what it must do better than, by where it starts


def run_train(given: argparse.Namespace) -> int:
    """Train, say what it gains, and write the model.

    Raises:
        RequestError: The request is wrong, or there is too little to learn from.
        NotPublishedError: It gains nothing for certain, and nothing was written.
    """
    _check(given)
    progress = Progress()
    path = free_place("--output", given.output)
    work = Path(os.path.abspath(given.work or f"{path}.work"))
    if work == path or path in work.parents:
        raise RequestError(f"--work {work}: lies in --output {path}; name a folder beside it")
    _own(work)
    sample = _sample(given, progress.say)
    new = not work.exists()
    with hold(work, "folder"):
        try:
            _same_request(work, _request(given, sample))
            pictures = _read(sample, work, progress)
            k = int(given.k or (10 if given.labels else COPIES))
            labels = pictures.labels if given.labels else None
            dealt = split(labels, len(pictures.labels), k, given.seed)
        except RequestError:
            if new:  # a wrong request leaves nothing behind
                remove_tree(work)
            raise
        return _train(given, path, work, sample, pictures, dealt, progress.say)


def _train(
    given: argparse.Namespace,
    path: Path,
    work: Path,
    sample: Sample,
    pictures: Pictures,
    dealt: Split,
    say: Callable[[str], None],
) -> int:
    from lookalike.learning import judging  # TensorFlow is loaded when the request is sound
    from lookalike.learning.fitting import RECIPES, Limits, fit
    from lookalike.learning.networks import PhotoNetwork, ScratchNetwork

    held = len(dealt.held.rows)
    say(
        f"train: {len(dealt.rows):,} pictures to learn from, {held:,} held out to judge by, on "
        f"{judging.device()}"
    )
    photo = given.start != "scratch"
    network = PhotoNetwork() if photo else ScratchNetwork(given.seed)
    teacher = PhotoNetwork() if photo else None
    limits = Limits(60 * given.minutes, given.steps)
    recipe = RECIPES[given.start, bool(given.labels)]
    fitted = fit(
        network,
        pictures,
        dealt,
        recipe,
        limits,
        work,
        labelled=bool(given.labels),
        teacher=teacher,
        seed=given.seed,
        say=say,
    )
    say(f"train: ended after step {fitted.steps:,}, {duration(fitted.seconds)}: {fitted.why}")
    shipped = {
        handle: judging.shipped(handle, pictures, dealt) for handle in _COMPARED[given.start]
    }
    before = max(shipped.values(), key=judging.mean)
    gain = gain_of(dealt.held.halves, before, fitted.after)
    numbers, module, precision = judging.choose(network, fitted.score, pictures, dealt)
    learned: dict[str, Any] = {
        "lookalike": __version__,
        "from": given.start,
        "labels": "given" if given.labels else "self",
        "images": len(dealt.rows),
        "kinds": dealt.kinds,
        "steps": fitted.steps,
        "step": fitted.best,
        "seconds": round(fitted.seconds, 1),
        "ended": fitted.why,
        "recipe": asdict(recipe),
        "seed": given.seed,
        "numbers": numbers,
        "precision": precision,
        "compared": {handle: judging.mean(one) for handle, one in shipped.items()},
        "input_size": list(network.size),
        "dim": network.dim,
    }
    written = gain.helps or given.force
    if written:
        with new_folder("--output", path) as folder:
            judging.export(module, folder)
            (folder / "README.md").write_text(_card(learned, gain), encoding="utf-8")
            (folder / "training.json").write_text(
                to_json(learned | {"held_out": gain.to_json()}, indent=1) + "\n", encoding="utf-8"
            )
        for name in ("pictures", "runs"):
            remove_tree(work / name)
        for name in (STATE, _REQUEST):
            (work / name).unlink(missing_ok=True)
    _report(given, sample, pictures, gain, learned, str(path) if written else None)
    if not written:
        raise NotPublishedError(refusal(path, "the vectors", gain))
    if not given.json:
        print(f"use it as a feature of a config:\n  - {{name: mine, handle: {to_json(str(path))}}}")
    return 0


# --- the request --------------------------------------------------------------------------------


def _check(given: argparse.Namespace) -> None:
    for flag, low, high in (
        ("sample", 1, 10**7),
        ("minutes", 0, 10**6),
        ("seed", 0, 2**31 - 1),
        ("steps", 1, 10**9),
        ("k", 1, 1000),
    ):
        value = getattr(given, flag)
        if value is not None and not low <= value <= high:
            name = "-k" if flag == "k" else f"--{flag}"
            raise RequestError(f"{name}: needs a number from {low} to {high:,}, got {value:g}")


def _own(work: Path) -> None:
    """Check the work folder, which is of this command alone."""
    if work.exists() and not work.is_dir():
        raise RequestError(f"--work {work}: is a file; name a folder")
    if not work.parent.is_dir():
        raise RequestError(f"--work {work}: no such folder: {work.parent}; make it first")
    foreign = sorted({one.name for one in work.iterdir()} - _KNOWN) if work.is_dir() else []
    if foreign:
        raise RequestError(
            f"--work {work}: holds other things than a training ({foreign[0]}); name a new folder"
        )


def _sample(given: argparse.Namespace, say: Callable[[str], None]) -> Sample:
    sources = [open_source(spec) for spec in given.images]
    check_images(sources)
    label_of = None
    if given.labels:
        folders = given.labels == "folders"
        label_of = evaluation.folder_label if folders else evaluation.file_labels(given.labels)
    files = (file for source in sources for file in source.files(say))
    most = PICTURES if given.sample is None else given.sample
    sample = draw(files, label_of, most, given.seed)
    if not sample.files:
        raise RequestError(
            f"{', '.join(given.images)}: no file has a label; check that the labels name the files "
            "as they are listed"
        )
    return sample


def _request(given: argparse.Namespace, sample: Sample) -> dict[str, Any]:
    """What must be the same for a training to be gone on with."""
    labels = {None: "none", "folders": "folders"}.get(given.labels, "a file")
    return {
        "--from": given.start,
        "--labels": labels,
        "--seed": given.seed,
        "-k": given.k,
        "the pictures or their labels": sample.fingerprint,
    }


def _same_request(work: Path, request: Mapping[str, Any]) -> None:
    """Go on with what is there, if it is of this request.

    Raises:
        RequestError: It is of another.
    """
    if not (work / _REQUEST).is_file():
        write_json(work, _REQUEST, request)
        return
    there = read_json(work / _REQUEST)
    for name, here in request.items():
        if there.get(name) != here:
            raise RequestError(
                f"{work}: holds a training that was begun by another request: {name} had "
                f"{there.get(name)!r:.40}, and now {here!r:.40}; give what it was begun with, name "
                "another folder (--work), or remove this one to begin anew"
            )


def _read(sample: Sample, work: Path, progress: Progress) -> Pictures:
    done = [0]
    total = len(sample.files)
    with progress.stage("read", "files", total, lambda: done[0]):
        pictures = gather(
            sample, SIDE, work, ImageLimits(), lambda count: done.__setitem__(0, count)
        )
    if pictures.failed:
        reasons = ", ".join(f"{count:,} {why}" for why, count in pictures.failed.most_common())
        progress.say(f"read: {len(pictures.labels):,} of {total:,} became pictures ({reasons})")
    return pictures


# --- what is written and said ---------------------------------------------------------------------


def _card(learned: Mapping[str, Any], gain: Gain) -> str:
    """For people; it names no picture and no label."""
    photo = learned["from"] == "builtin:photo"
    height, width = learned["input_size"]
    what = (
        "The network of `builtin:photo` (EfficientNet-Lite2, Apache-2.0, trained on ImageNet by "
        "Google), whose last blocks were trained further"
        if photo
        else "A small residual network, trained from random weights"
    )
    by = (
        f"labels: {learned['kinds']:,} kinds of things"
        if learned["labels"] == "given"
        else "none but the pictures themselves: views of one are alike"
    )
    held = "kinds of things" if learned["labels"] == "given" else "pictures, asked for by copies"
    compared = ", ".join(f"`{one}` {score:.3f}" for one, score in learned["compared"].items())
    return f"""# A network trained by lookalike {learned["lookalike"]}

{what}.

- **In and out.** (n, {height}, {width}, 3) uint8 RGB to (n, {learned["dim"]:,}) float32, to be
  compared by cosine. It calculates in {learned["numbers"]}.
- **Learned from** {learned["images"]:,} pictures by {by}. {learned["steps"]:,} steps in
  {duration(learned["seconds"])}, the weights are those of step {learned["step"]:,}; it ended as
  {learned["ended"]}.
- **Measured on {held} held out,** each half at the moment that is best by the other:
  {gain}. "Before" is the better of {compared}. The files here have P@{gain.k}
  {learned["precision"]:.3f} on all that was held out, of which their moment was chosen by.
- **Not for** what its pictures do not show: there it may be worse than what ships, which
  `lookalike evaluate` measures.

To use it, name this folder as a feature's handle in a config. `ivf.json` has the numbers.
"""


def _report(
    given: argparse.Namespace,
    sample: Sample,
    pictures: Pictures,
    gain: Gain,
    learned: Mapping[str, Any],
    written: str | None,
) -> None:
    if given.json:
        print_as_json(
            {
                "images": len(pictures.labels),
                "of": sample.listed,
                "failed": dict(pictures.failed),
                "held_out": gain.to_json(),
                "found": learned,
                "written": written,
            }
        )
        return
    what = "labels" if learned["labels"] == "given" else "pictures, by themselves"
    print(
        f"learned from {learned['images']:,} pictures of {learned['kinds']:,} {what}, from "
        f"{learned['from']}: {learned['steps']:,} steps, {learned['numbers']}"
    )
    print(
        "to be better than: "
        + ", ".join(f"{one} P@{gain.k} {score:.3f}" for one, score in learned["compared"].items())
    )
    print(f"held out: {gain}")
    if not gain.helps:
        print("this does not help for certain: the gain's interval reaches 0")
    if written:
        print(visible(f"written: {written}"))
