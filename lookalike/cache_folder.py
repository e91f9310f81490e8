"""Where what can be had again lies on this machine: files of stores, models made ready."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """`$XDG_CACHE_HOME/lookalike`, or `~/.cache/lookalike`; it need not be there."""
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(os.path.abspath(home)) / "lookalike"
