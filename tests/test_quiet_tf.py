from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest


def run(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {key: value for key, value in os.environ.items() if not key.startswith("TF_")}
    done = subprocess.run(
        [sys.executable, "-c", code], env=clean | environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done


@pytest.mark.slow
def test_nothing_is_printed_on_stderr(tmp_path: Path) -> None:
    done = run(f"""
import numpy as np
from pathlib import Path

import pytest
from lookalike.models import color_texture
from lookalike.models import saved_model as models
from lookalike.models.inspection import inspect
print(models.configure_threads(1), models.configure_threads(1))
folder = Path({str(tmp_path)!r}) / "m"
color_texture.export(folder)
info = inspect(folder)
print(models.FrozenModel(folder, info)(np.zeros((2, 128, 128, 3), np.uint8)).shape)
print(models.configure_threads(1), models.configure_threads(2))
""")
    assert done.stderr == ""
    assert done.stdout.split("\n")[:3] == ["True True", "(2, 1511)", "True False"]


def test_only_chatter_is_held_back() -> None:
    done = run("""
import os, sys
from lookalike.models.quiet_tf import _without_chatter
with _without_chatter():
    os.write(2, b"I0000 00:00:1.2 7 port.cc:153] a note\\n")
    os.write(2, b"2025-09-17 14:44:05.157831: I x.cc] the older format\\n")
    print("a real problem", file=sys.stderr)
    os.write(2, b"F0000 00:00:1.2 7 x.cc:1] fatal\\n")
print("after", file=sys.stderr)
""")
    assert done.stderr.split("\n") == [
        "a real problem",
        "F0000 00:00:1.2 7 x.cc:1] fatal",
        "after",
        "",
    ]


def test_a_user_who_asks_for_the_log_gets_it() -> None:
    code = (
        "import os; from lookalike.models.quiet_tf import tf;"
        "print(os.environ['TF_CPP_MIN_LOG_LEVEL'])"
    )
    assert run(code, TF_CPP_MIN_LOG_LEVEL="0").stdout == "0\n"
