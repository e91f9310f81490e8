from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from lookalike.errors import RequestError
from lookalike.images.limits import ImageLimits
from lookalike.models.resolving import DEFAULT_FEATURES, FeatureConfig
from lookalike.pipelines.config import (
    CompactConfig,
    Config,
    PublishConfig,
    load_config,
    parse_config,
)
from lookalike.pipelines.runner import RunnerSpec
from tests.documented import ROOT, blocks

CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))
FEATURES = [{"name": "low", "handle": "builtin:color-texture"}]
TWO = [*FEATURES, {"name": "deep", "handle": "/models/x"}]


def parse(**top: Any) -> Config:
    return parse_config({"features": FEATURES, **top}, [])


# --- what is right ----------------------------------------------------------------------------


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_the_configs_that_are_shipped(path: Path) -> None:
    config = load_config(str(path))
    assert config.features
    assert path.read_text().startswith("# ")  # the command that runs it


def test_the_config_on_the_page_about_engines() -> None:
    [(_, text)] = blocks(ROOT / "docs" / "engines.md", "yaml")
    assert parse_config(yaml.safe_load(text), []).runner.name == "dask"


def test_there_are_configs() -> None:
    assert "quickstart.yaml" in [path.name for path in CONFIGS]


def test_everything_but_the_features_has_a_default() -> None:
    assert parse() == Config((FeatureConfig("low", "builtin:color-texture", 1.0),))
    empty = dict.fromkeys(("index", "publish", "compact", "runner", "images", "embed"))
    assert parse(**empty) == parse()


def test_every_key_is_read() -> None:
    text = """
        features:
          - {name: low, handle: 'builtin:color-texture', weight: 0.25}
          - {name: deep, handle: /m, weight: 3, signature: s, output: o, input_size: [224, 192]}
          - {name: square, handle: /n, input_size: 96}
        metric: l2
        engine: openvino-bf16
        index: {kind: ivf_pq, target_recall: 1, memory: 1.5GiB, nlist: 64, code_bytes: 32,
                nbits: 4, shards: 3, seed: 0, queries: 50}
        publish: {min_recall: 0, max_rejected_share: 1, max_shrink_share: 0.25}
        compact: {max_delta_share: 0.5, max_tombstone_share: 0, max_deltas: 3}
        runner: {name: flink, workers: 2, parallelism: 8, checkpointing_interval: 1000}
        images: {max_pixels: 1000000, max_bytes: 20 MB, max_memory: 1GiB}
        embed: {unit_files: 64}
    """
    assert parse_config(yaml.safe_load(text), ["--streaming"]) == Config(
        (
            FeatureConfig("low", "builtin:color-texture", 0.25),
            FeatureConfig("deep", "/m", 3.0, "s", "o", (224, 192)),
            FeatureConfig("square", "/n", 1.0, None, None, (96, 96)),
        ),
        "l2",
        {
            "kind": "ivf_pq",
            "target_recall": 1.0,
            "memory": 3 << 29,
            "nlist": 64,
            "code_bytes": 32,
            "nbits": 4,
            "shards": 3,
            "seed": 0,
            "queries": 50,
        },
        PublishConfig(0.0, 1.0, 0.25),
        CompactConfig(0.5, 0.0, 3),
        RunnerSpec(
            "flink", 2, {"parallelism": 8, "checkpointing_interval": 1000}, ("--streaming",)
        ),
        ImageLimits(max_pixels=1_000_000, max_bytes=20_000_000, max_memory=1 << 30),
        64,
        "openvino-bf16",
    )


@pytest.mark.parametrize(
    ("written", "size"),
    [
        ("4GiB", 4 << 30),
        ("500MB", 500_000_000),
        ("1 tib", 1 << 40),
        (4096, 4096),
        ("7B", 7),
        ("0.5KiB", 512),
        (" 2kb ", 2000),
    ],
)
def test_sizes(written: Any, size: int) -> None:
    assert parse(index={"memory": written}).index["memory"] == size


def test_model_paths_may_start_from_the_config(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "configs" / "model").mkdir(parents=True)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path)
    names = ["model", "here", "nowhere", "builtin:model", "https://host/model", "~/model"]
    listed = [{"name": name, "handle": name} for name in names]
    (tmp_path / "configs" / "c.yaml").write_text(yaml.safe_dump({"features": listed}))
    config = load_config("configs/c.yaml")
    assert [feature.handle for feature in config.features] == [
        str(tmp_path / "configs" / "model"),
        *names[1:],
    ]


# --- what is wrong ----------------------------------------------------------------------------


def feature(**keys: Any) -> dict[str, Any]:
    return {"features": [{**FEATURES[0], **keys}]}


WRONG: list[tuple[dict[str, Any], str]] = [
    # unknown keys
    ({"metrik": "l2"}, r"^metrik: unknown key; did you mean metric\? known here: features, "),
    ({"projection": 4}, r"^projection: needs a text, got 4"),
    (
        {"projection": "m", "metric": "l2", "features": [{"name": "a", "handle": "b"}]},
        r"^projection: needs vectors of unit length, and a single feature under metric l2 has none",
    ),
    ({"index": {"nlists": 4}}, r"^index.nlists: unknown key; did you mean nlist\?"),
    ({"index": {"zzz": 4}}, r"^index.zzz: unknown key; known here: kind, "),
    ({"publish": {"min_recal": 1}}, r"^publish.min_recal: unknown key; did you mean min_recall\?"),
    ({"images": {"max_pixel": 1}}, r"^images.max_pixel: unknown key; did you mean max_pixels\?"),
    ({"embed": {"batch": 1}}, r"^embed.batch: unknown key; known here: unit_files"),
    (feature(wieght=1), r"^features\[0\].wieght: unknown key; did you mean weight\?"),
    ({1: 2}, r"^1: unknown key"),
    # engines
    ({"engine": "onnx"}, r"^engine: needs one of auto, tensorflow, openvino, openvino-bf16, got"),
    ({"engine": None}, r"^engine: needs one of auto, .*got None"),
    ({"engine": ["auto"]}, r"^engine: needs one of auto, .*got \['auto'\]"),
    ({"engnie": "auto"}, r"^engnie: unknown key; did you mean engine\?"),
    # types
    ({"features": None}, r"^features: needs a list of at least one .*got None"),
    ({"features": []}, r"^features: needs a list of at least one .*got \[\]"),
    ({"features": "x"}, r"^features: needs a list .*got 'x'"),
    ({"features": ["x"]}, r"^features\[0\]: needs a mapping of keys to values, got 'x'"),
    ({"index": []}, r"^index: needs a mapping of keys to values, got \[\]"),
    ({"runner": "direct"}, r"^runner: needs a mapping of keys to values, got 'direct'"),
    # features
    (feature(name=None), r"^features\[0\].name: needs a text, got None"),
    (feature(name=" "), r"^features\[0\].name: needs a text, got ' '"),
    (feature(handle=7), r"^features\[0\].handle: needs a text, got 7"),
    (feature(signature=1), r"^features\[0\].signature: needs a text, got 1"),
    (feature(output=["a"]), r"^features\[0\].output: needs a text, got \['a'\]"),
    (feature(weight=0), r"^features\[0\].weight: needs a number above 0, and finite, got 0"),
    (feature(weight=-0.5), r"^features\[0\].weight: needs a number above 0, .*got -0.5"),
    (feature(weight=float("nan")), r"^features\[0\].weight: needs a number above 0, .*got nan"),
    (feature(weight=float("inf")), r"^features\[0\].weight: .* finite, got inf"),
    (feature(weight=10**400), r"^features\[0\].weight: .* finite, got 1000"),
    (feature(weight=True), r"^features\[0\].weight: needs a number above 0, .*got True"),
    (feature(weight="1"), r"^features\[0\].weight: needs a number above 0, .*got '1'"),
    (feature(input_size=True), r"^features\[0\].input_size: needs a whole number from 8, got True"),
    (feature(input_size=[224]), r"^features\[0\].input_size: needs \[height, width\] .* \[224\]"),
    (feature(input_size=[0, 9]), r"^features\[0\].input_size: needs a whole number from 8, got 0"),
    (feature(input_size=9.5), r"^features\[0\].input_size: needs \[height, width\] .*got 9.5"),
    ({"features": FEATURES * 2}, r"^features: the name 'low' is given twice; names must differ"),
    # metric
    ({"metric": "cosin"}, r"^metric: needs one of cosine, inner_product, l2, jaccard, got 'cosin'"),
    ({"metric": None}, r"^metric: needs one of .*got None"),
    ({"metric": ["l2"]}, r"^metric: needs one of .*got \['l2'\]"),
    ({"metric": "jaccard", "features": TWO}, r"^metric: jaccard compares one .* features lists 2"),
    # index
    ({"index": {"kind": "hnsw"}}, r"^index.kind: .* auto, exact, ivf_sq, ivf_pq, got 'hnsw'"),
    ({"index": {"nbits": "4"}}, r"^index.nbits: needs a whole number from 1, got '4'"),
    ({"index": {"target_recall": 0}}, r"^index.target_recall: needs a number above 0 to 1, got 0"),
    ({"index": {"target_recall": 1.5}}, r"^index.target_recall: .* above 0 to 1, got 1.5"),
    ({"index": {"target_recall": True}}, r"^index.target_recall: .* above 0 to 1, got True"),
    ({"index": {"nlist": 0}}, r"^index.nlist: needs a whole number from 1, got 0"),
    ({"index": {"nlist": 4.0}}, r"^index.nlist: needs a whole number from 1, got 4.0"),
    ({"index": {"nlist": True}}, r"^index.nlist: needs a whole number from 1, got True"),
    ({"index": {"seed": -1}}, r"^index.seed: needs a whole number from 0, got -1"),
    ({"index": {"kind": "exact", "nlist": 4}}, r"^index.nlist: an exact index has no nlist; "),
    ({"index": {"kind": "exact", "code_bytes": 4}}, r"^index.code_bytes: an exact index has no"),
    *[
        ({"index": {"memory": value}}, r"^index.memory: needs a size such as 4GiB or 500MB, got ")
        for value in ("much", "4 GiBs", "-4GiB", "", None, True, [], "4,5GiB", -1, "1" * 40 + "GiB")
    ],
    *[
        ({"index": {"memory": value}}, r"^index.memory: needs at least one byte, got ")
        for value in (0, "0GiB", 0.2)
    ],
    # limits
    ({"publish": {"min_recall": 1.1}}, r"^publish.min_recall: needs a number from 0 to 1, got 1.1"),
    ({"publish": {"min_recall": "x"}}, r"^publish.min_recall: needs a number from 0 to 1, got 'x'"),
    ({"publish": {"max_rejected_share": -1}}, r"^publish.max_rejected_share: .* 0 to 1, got -1"),
    ({"images": {"max_pixels": 0}}, r"^images.max_pixels: needs a whole number from 1, got 0"),
    ({"images": {"max_bytes": "big"}}, r"^images.max_bytes: needs a size such as 4GiB"),
    ({"embed": {"unit_files": -1}}, r"^embed.unit_files: needs a whole number from 0, got -1"),
    # runner
    ({"runner": {"workers": -1}}, r"^runner.workers: needs a whole number from 0, got -1"),
    ({"runner": {"workers": 1.5}}, r"^runner.workers: needs a whole number from 0, got 1.5"),
    ({"runner": {"workers": True}}, r"^runner.workers: needs a whole number from 0, got True"),
    ({"runner": {"name": 3}}, r"^runner.name: needs one of direct, prism, dask, .*, got 3"),
    ({"runner": {"name": "FlinkRunner"}}, r"^runner.name: needs one of .*, got 'FlinkRunner'"),
]


@pytest.mark.parametrize(("top", "message"), WRONG, ids=[message[:40] for _, message in WRONG])
def test_wrong_configs_name_the_key_the_rule_and_the_value(
    top: dict[str, Any], message: str
) -> None:
    with pytest.raises(RequestError, match=message) as caught:
        parse_config({"features": FEATURES, **top}, [])
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"features: [", r": not YAML: "),
        (
            b"metric: cosine\nengine: auto\nmetric: l2\n",
            r": metric: given twice, as cosine in line 1 and as l2 in line 3; keep one",
        ),
        (b"index: {nlist: 4, nlist: 4}", r": nlist: given twice, as 4 in line 1 and as 4 in "),
        (b"index: {seed: 4}\nindex: {seed: 5}", r": index: given twice, as … in line 1 and "),
        (b"features: {a: b: c}", r": not YAML: "),
        (b"a: !!python/object:os.system {}", r": not YAML: "),
        (b"metric: 2024-99-99", r": not YAML: month must be"),
        (b"[" * 600, r": not YAML: "),
        (b"\0\1\2", r": not YAML: "),
        (b"\xff\xd8\xff\xe0", r": not a text file"),
        (b"", r": the config: needs a mapping of keys to values, got None"),
        (
            b"- features\n- metric\n",
            r": the config: needs a mapping .*got \['features', 'metric'\]",
        ),
        (b"features", r": the config: needs a mapping of keys to values, got 'features'"),
        (b"metric: l3", r": metric: needs one of cosine"),
    ],
)
def test_files_that_are_no_config(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "c.yaml"
    path.write_bytes(content)
    with pytest.raises(RequestError, match=f"^config {path}{message}") as caught:
        load_config(str(path))
    assert "\n" not in str(caught.value)


def test_files_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"absent\.yaml: No such file or directory"):
        load_config(str(tmp_path / "absent.yaml"))
    with pytest.raises(RequestError, match="Is a directory"):
        load_config(str(tmp_path))


def test_a_config_without_features_has_the_shipped_ones(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("metric: l2\n")
    assert load_config(str(tmp_path / "c.yaml")).features == DEFAULT_FEATURES
    assert [(one.handle, one.weight) for one in DEFAULT_FEATURES] == [
        ("builtin:photo", 0.7),
        ("builtin:color-texture", 0.3),
    ]
    quickstart = ROOT / "configs" / "quickstart.yaml"
    assert load_config(str(quickstart)).features == DEFAULT_FEATURES
