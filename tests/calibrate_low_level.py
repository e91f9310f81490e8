"""`python -m tests.calibrate_low_level FOLDER`: what photographs usually look like, anew.

Writes lookalike/models/usual/color_texture.npz from the pictures of a folder. The numbers are part
of builtin:color-texture: others need a new version in `handles.BUILTINS`.
"""

import sys
from pathlib import Path

import numpy as np

from lookalike.images.preparing import prepare
from lookalike.models import color_texture
from lookalike.models.descriptors import INPUT_SIZE
from lookalike.models.quiet_tf import tf


def main(folder: Path) -> None:
    """Measure the pictures of a folder."""
    pairs, patterns = [], []
    describe = tf.function(color_texture.blocks)
    for file in sorted(folder.iterdir()):
        picture = prepare(file.read_bytes(), file.name, sizes=[INPUT_SIZE]).arrays[0]
        blocks = describe(tf.constant(picture[None] / np.float32(255)))
        pairs.append(blocks["pairs"].numpy()[0])
        patterns.append(blocks["pattern"].numpy()[0])
    target = Path(color_texture.__file__).with_name("usual") / "color_texture.npz"
    target.parent.mkdir(exist_ok=True)
    measured = {
        "pairs_mean": np.mean(pairs, 0),
        "pairs_spread": np.std(pairs, 0),
        "pattern_mean": np.mean(patterns, 0),
    }
    rounded = {name: np.round(array, 4).astype(np.float32) for name, array in measured.items()}
    np.savez_compressed(target, **rounded)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
