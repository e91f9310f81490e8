"""autofaiss, in its own environment: it needs an older Faiss and numpy than the project does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import autofaiss  # type: ignore[import-not-found]

from benchmarks.index.child import Unbuilt
from benchmarks.index.faiss_ways import INDEX_FILE, Plain

_ID_BYTES = 8
_AVAILABLE_MIB = (2048, 4096, 8192, 16384, 32768)


def build(task: dict[str, Any], out: Path) -> dict[str, Any]:
    """Let it choose and build within the memory given; more to build with if it refuses less."""
    memory = task["rows"] * (task["code_bytes"] + _ID_BYTES)
    for available in _AVAILABLE_MIB:
        index, told = autofaiss.build_index(
            str(Path(task["array"]).parent),
            index_path=str(out / INDEX_FILE),
            index_infos_path=str(out / "infos.json"),
            max_index_memory_usage=f"{memory}B",
            current_memory_available=f"{available}MB",
            metric_type="ip",
            nb_cores=task["cores"],
        )
        if index is not None:
            return {
                "key": str(told["index_key"]),
                "bytes": (out / INDEX_FILE).stat().st_size,
                "chosen": str(told["index_param"]),
                "memory_given": available << 20,
            }
    raise Unbuilt(f"it refuses to build in {_AVAILABLE_MIB[-1]:,} MiB of memory")


def serve(task: dict[str, Any], out: Path) -> Plain:
    """Open what was built."""
    return Plain(out / INDEX_FILE)
