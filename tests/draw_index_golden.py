"""Write tests/golden/index_v2_*: run once per format version, never to make a test pass.

python -m tests.draw_index_golden
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from lookalike.ivf import trained_index as index
from lookalike.ivf.invlists import read_shard
from lookalike.ivf.planner import plan
from lookalike.ivf.train import train
from lookalike.ivf.trained_index import TrainedIndex
from tests.index_shards import encode_shard
from tests.vector_stores import clustered

GOLDEN = Path(__file__).parent / "golden"


def draw(name: str, options: dict[str, object]) -> None:
    vectors = clustered(80, 8)
    spec = plan(80, 8, "cosine", options)
    data, _ = train(spec, vectors)
    trained = TrainedIndex(data, spec)
    folder = GOLDEN / f"index_v2_{name}"
    folder.mkdir(exist_ok=True)
    (folder / index.TRAINED_FILE).write_bytes(data)
    (folder / index.SPEC_FILE).write_text(json.dumps(spec.to_json(), indent=1, sort_keys=True))
    ids = np.arange(80) + (7 << 32)
    with open(folder / "shard.lists", "wb") as file:
        encode_shard(trained, [(ids, vectors)], file.write)
    prepared = trained.prepare(vectors)
    lists = trained.assign(prepared)
    queries = vectors[:4]
    asked = trained.prepare(queries)
    shard = read_shard(folder / "shard.lists", trained)
    found, scores = shard.search(asked, 3, *trained.coarse(asked, spec.nlist))
    answers = {
        "template": trained.sha256,
        "queries": queries.tolist(),
        "ids": found.tolist(),
        "scores": scores.tolist(),
        "codes": trained.encode(prepared, lists)[np.lexsort((ids, lists))].tolist(),
    }
    (folder / "answers.json").write_text(json.dumps(answers))


if __name__ == "__main__":
    draw("exact", {"kind": "exact"})
    draw("ivf_pq_4bit", {"kind": "ivf_pq", "nbits": 4, "nlist": 4, "code_bytes": 2})
