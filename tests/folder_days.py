"""Days in the life of a folder of pictures: what people and programs do to files, at random."""

from __future__ import annotations

import io
import os
import random
import shutil
from pathlib import Path

import numpy as np
from PIL import Image


class Folder:
    """A folder of small pictures to which days happen; the same for the same seed."""

    def __init__(self, root: Path, seed: int) -> None:
        """Start with an empty folder."""
        self.root, self.random = root, random.Random(seed)
        self._made = 0
        root.mkdir(parents=True)

    def files(self) -> list[Path]:
        """All files, sorted."""
        return sorted(path for path in self.root.rglob("*") if path.is_file())

    def day(self, things: int) -> list[str]:
        """Let so many things happen; says which."""
        kinds = [self.add] * 4 + [
            self.edit,
            self.touch,
            self.rename,
            self.rename,
            self.copy,
            self.copy,
            self.delete,
            self.delete,
            self.damage,
            self.repair,
            self.ignored,
            self.swap,
            self.move_folder,
        ]
        done = []
        for _ in range(things):
            thing = self.random.choice(kinds if len(self.files()) > 3 else [self.add])
            thing()
            done.append(thing.__name__)
        return done

    # --- what may happen ------------------------------------------------------------------------

    def add(self) -> None:
        """A new picture."""
        self._name().write_bytes(self._picture())

    def edit(self) -> None:
        """A file becomes another picture."""
        self._any().write_bytes(self._picture())

    def touch(self) -> None:
        """A file is said to have changed, and has not."""
        os.utime(self._any())

    def rename(self) -> None:
        """A file gets another name, perhaps in another folder."""
        path = self._any()
        path.rename(self._name(path.suffix))

    def copy(self) -> None:
        """The same bytes under another name."""
        path = self._any()
        shutil.copyfile(path, self._name(path.suffix))

    def delete(self) -> None:
        """A file goes."""
        self._any().unlink()

    def damage(self) -> None:
        """A file loses its second half."""
        path = self._any()
        data = path.read_bytes()
        path.write_bytes(data[: max(20, len(data) // 2)])

    def repair(self) -> None:
        """What was damaged becomes a picture; any file, where none was."""
        whole = b"IEND\xaeB`\x82"
        broken = [path for path in self.files() if not path.read_bytes().endswith(whole)]
        path = self.random.choice(broken) if broken else self._any()
        path.write_bytes(self._picture())

    def ignored(self) -> None:
        """A file that is no picture and does not say so."""
        self._name(".json").write_text(f'{{"number": {self._made}}}')

    def swap(self) -> None:
        """Two files change names."""
        first, second = self._any(), self._any()
        if first != second:
            spare = self.root / "spare"
            first.rename(spare)
            second.rename(first)
            spare.rename(second)

    def move_folder(self) -> None:
        """A whole folder gets another name."""
        folders = sorted(path for path in self.root.iterdir() if path.is_dir())
        if folders:
            self._made += 1
            self.random.choice(folders).rename(self.root / f"moved {self._made}")

    # --- with what ------------------------------------------------------------------------------

    def _any(self) -> Path:
        return self.random.choice(self.files())

    def _name(self, suffix: str = ".png") -> Path:
        """A new name: before or after those there are, in one of some folders."""
        self._made += 1
        folder = self.root / self.random.choice(["", "a", "b é", "z"])
        folder.mkdir(exist_ok=True)
        return folder / f"{self.random.choice('amz')}{self._made}{suffix}"

    def _picture(self) -> bytes:
        numbers = np.random.default_rng(self.random.getrandbits(32))
        coarse = Image.fromarray(numbers.integers(0, 256, (4, 5, 3), dtype=np.uint8))
        size = self.random.choice([(48, 40), (40, 48), (64, 64)])
        output = io.BytesIO()
        coarse.resize(size, Image.Resampling.BILINEAR).save(output, "PNG")
        return output.getvalue()
