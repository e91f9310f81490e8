"""Write tests/golden/index_v2_*: run once per format version, never to make a test pass.

python -m tests.draw_index_golden
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from lookalike.ivf import template as index
from lookalike.ivf.invlists import read_shard
from lookalike.ivf.planner import plan
from lookalike.ivf.template import Template
from lookalike.ivf.train import train
from tests.index_shards import encode_shard
from tests.vector_stores import clustered

GOLDEN = Path(__file__).parent / "golden"


def draw(name: str, options: dict[str, object]) -> None:
    vectors = clustered(80, 8)
    spec = plan(80, 8, "cosine", options)
    data, _ = train(spec, vectors)
    template = Template(data, spec)
    folder = GOLDEN / f"index_v2_{name}"
    folder.mkdir(exist_ok=True)
    (folder / index.TEMPLATE_FILE).write_bytes(data)
    (folder / index.SPEC_FILE).write_text(json.dumps(spec.to_json(), indent=1, sort_keys=True))
    ids = np.arange(80) + (7 << 32)
    with open(folder / "shard.lists", "wb") as file:
        encode_shard(template, [(ids, vectors)], file.write)
    prepared = template.prepare(vectors)
    lists = template.assign(prepared)
    queries = vectors[:4]
    asked = template.prepare(queries)
    shard = read_shard(folder / "shard.lists", template)
    found, scores = shard.search(asked, 3, *template.coarse(asked, spec.nlist))
    answers = {
        "template": template.sha256,
        "queries": queries.tolist(),
        "ids": found.tolist(),
        "scores": scores.tolist(),
        "codes": template.encode(prepared, lists)[np.lexsort((ids, lists))].tolist(),
    }
    (folder / "answers.json").write_text(json.dumps(answers))


if __name__ == "__main__":
    draw("exact", {"kind": "exact"})
    draw("ivf_pq_4bit", {"kind": "ivf_pq", "nbits": 4, "nlist": 4, "code_bytes": 2})
