"""`python -m tests.prism`: find Beam's engine Prism of the SDK's version, or build it with Go."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import apache_beam

from lookalike.pipelines.engines import find_prism, prism_in_cache

_SOURCE = f"github.com/apache/beam/sdks/v2/go/cmd/prism@v{apache_beam.__version__}"


def build() -> Path:
    """Build it into the cache, whole or not at all; takes minutes."""
    if named := os.environ.get("LOOKALIKE_PRISM"):
        sys.exit(f"prism: LOOKALIKE_PRISM names {named}, and there is no such file")
    go = shutil.which("go") or shutil.which("go", path="/usr/local/go/bin")  # where it unpacks
    if go is None:
        sys.exit("prism: needs Go to be built (https://go.dev), or LOOKALIKE_PRISM=BINARY")
    target = prism_in_cache()
    target.parent.mkdir(parents=True, exist_ok=True)
    print(f"prism: building {_SOURCE}, some minutes the first time", file=sys.stderr)
    with tempfile.TemporaryDirectory(dir=target.parent) as work:
        ended = subprocess.run([go, "install", _SOURCE], env={**os.environ, "GOBIN": work})
        if ended.returncode:
            sys.exit(f"prism: not built: go install ended with status {ended.returncode}")
        os.replace(Path(work) / "prism", target)
    return target


if __name__ == "__main__":
    print(find_prism() or build())
