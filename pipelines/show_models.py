"""`lookalike models`: what ships, and what a handle is."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from lookalike.errors import RequestError
from lookalike.models.handles import BUILTINS, builtin_fingerprint
from lookalike.models.resolving import FeatureConfig
from lookalike.models.shipped import SHIPPED
from lookalike.pipelines.config import load_config
from lookalike.report.text import visible


def models(given: argparse.Namespace) -> int:
    """List the shipped features; probe a handle, or a config's; or quantise one."""
    if given.quantize:
        if not given.output:
            raise RequestError("--quantize: needs --output MODEL, the folder to make")
        from lookalike.pipelines.progress import Progress
        from lookalike.pipelines.quantize import run_quantize

        return run_quantize(given, Progress())
    if given.output or given.force:
        raise RequestError("--output and --force go with --quantize, which makes a model")
    if given.handle and given.config:
        raise RequestError(
            f"--config {given.config} names features itself; leave {given.handle} out, or name it "
            "in the config"
        )
    asked: tuple[FeatureConfig, ...] = ()
    if given.config:
        asked = load_config(given.config).features
    elif given.handle:
        asked = (FeatureConfig("asked for", given.handle),)
    found = _probed(asked) if asked else _shipped()
    if given.json:
        print(json.dumps({"models": found}, indent=1))
    elif asked:
        print("\n\n".join(_page(one) for one in found))
    else:
        for one in found:
            print(
                f"{one['handle']:<24}{one['dim']:>6,} dimensions  {one['licence']:<12}"
                f"{one['purpose']}"
            )
        print("lookalike models HANDLE tries a handle and measures it; docs/features.md says more")
    return 0


def _shipped() -> list[dict[str, Any]]:
    return [
        {
            "handle": f"builtin:{name}",
            "dim": SHIPPED[name].dim,
            "input_size": [*SHIPPED[name].input_size],
            "licence": SHIPPED[name].licence,
            "purpose": SHIPPED[name].purpose,
            "fingerprint": builtin_fingerprint(f"builtin:{name}"),
        }
        for name in BUILTINS
    ]


def _probed(asked: tuple[FeatureConfig, ...]) -> list[dict[str, Any]]:
    from lookalike.models.probing import probe

    def say(line: str) -> None:
        print(visible(line), file=sys.stderr)

    found = []
    for one in asked:
        with tempfile.TemporaryDirectory(prefix="lookalike-") as work:
            found.append(probe(one, Path(work), say))
    return found


def _page(one: dict[str, Any]) -> str:
    height, width = one["input_size"]
    lines = [
        ("handle", one["handle"]),
        ("kind", one["kind"]),
        *(("input", text) for text in one["inputs"]),
        *(("output", text) for text in one["outputs"]),
        ("used", _used(one)),
        ("pictures", f"{height} x {width} (height x width)"),
        ("vectors", f"{one['dim']:,} dimensions"),
        ("licence", one["licence"] or "not told; look at where the model comes from"),
        ("fingerprint", one["fingerprint"]),
        *(("engine", _engine(engine)) for engine in one["engines"]),
    ]
    return "\n".join(visible(f"{name:<12}{text}") for name, text in lines if text)


def _used(one: dict[str, Any]) -> str:
    parts = (("signature", one["signature"]), ("output", one["output"]))
    return ", ".join(f"{name} {value}" for name, value in parts if value)


def _engine(one: dict[str, Any]) -> str:
    if "trouble" in one:
        return f"{one['name']}: cannot run it: {one['trouble']}"
    return f"{one['name']}: {one['images_per_second']:,.1f} images/s, cosine {one['cosine']:.5f}"
