"""The search for what must be gone: everything that is there is found, and nothing else."""

from __future__ import annotations

import html
import json
import re
from urllib.parse import quote

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lookalike.store.objects import Store, open_store
from lookalike.store.patterns import Patterns
from lookalike.store.proof import Find, Proof, all_files, longer_names, search, total
from lookalike.store.traces import Traces
from tests.vector_stores import clustered, make_store

NAME = '/pictures/été "1" & <b>\n.jpg'
CONTENT = bytes(range(32))
VECTOR = clustered(1, 16, seed=7)[0]


def traces(names=(NAME,), contents=(CONTENT,), vectors=((VECTOR,),), living=()):
    return Traces(list(names), list(contents), [list(forms) for forms in vectors], list(living))


def prove(store: Store, wanted: Traces) -> Proof:
    """Search every file under a store, as the tasks of `lookalike forget` do together."""
    entries = list(all_files(store))
    return total(wanted, entries, [search(store, wanted, [entry.path for entry in entries])])


def kinds(store, wanted=None):
    return {(one.path, one.kind) for one in prove(open_store(store), wanted or traces()).finds}


# --- strings in bytes -------------------------------------------------------------------------


@given(st.data())
def test_every_occurrence_is_found(data):
    """Over an alphabet of two bytes, where everything is nearly everywhere."""
    letters = st.binary(min_size=8, max_size=20).map(lambda b: bytes(x % 2 for x in b))
    patterns = data.draw(st.lists(letters, min_size=1, max_size=5))
    text = data.draw(st.binary(max_size=300)).translate(bytes(x % 2 for x in range(256)))
    text += data.draw(st.sampled_from(patterns)) + data.draw(st.binary(max_size=9))
    expected = {
        (number, match.start())
        for number, pattern in enumerate(patterns)
        for match in re.finditer(b"(?=" + re.escape(pattern) + b")", text)
    }
    assert set(Patterns(patterns).find(text)) == expected


@pytest.mark.parametrize("position", [0, 1, (1 << 20) - 9, (1 << 20) - 4, 1 << 20, (2 << 20) - 1])
def test_blocks_have_no_seams(position):
    pattern = b"here it is, not elsewhere"
    text = bytearray(np.random.default_rng(0).bytes((2 << 20) + 50))
    text[position : position + len(pattern)] = pattern
    assert list(Patterns([b"not there", pattern]).find(text)) == [(1, position)]


def test_no_patterns_and_no_bytes():
    assert list(Patterns([]).find(b"something to look through")) == []
    for text in (b"", b"short", b"12345678"):
        assert list(Patterns([b"a longer one"]).find(text)) == []
    with pytest.raises(ValueError, match="at least 8 bytes, got b'seven'"):
        Patterns([b"seven"])


def test_traces_are_read_back_as_they_were():
    half = VECTOR.astype(np.float16)
    given = traces(names=[NAME, "/caf\udce9"], vectors=[(VECTOR, half), ()], living=[NAME * 2])
    read = Traces.from_bytes(given.to_bytes())
    assert (read.names, read.contents, read.living) == (given.names, given.contents, given.living)
    for one, other in zip(given.vectors, read.vectors, strict=True):
        assert [(v.dtype, v.tolist()) for v in one] == [(v.dtype, v.tolist()) for v in other]


# --- files ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "written",
    [
        NAME,
        json.dumps({"a": [NAME]}),
        json.dumps({"a": NAME}, ensure_ascii=False),
        f"<td>{html.escape(NAME)}</td>",
        f"file://{quote(NAME)}",
    ],
)
def test_names_are_found_however_they_are_written(written, tmp_path):
    path = tmp_path / "snapshots" / "one" / "some.html"
    path.parent.mkdir(parents=True)
    path.write_text(f"before {written} after")
    assert kinds(tmp_path) == {("snapshots/one/some.html", "name")}


def test_hashes_and_vectors_are_found_as_bytes_and_hex(tmp_path):
    (tmp_path / "a").write_bytes(b"xyz" + CONTENT)
    (tmp_path / "b").write_text(json.dumps({"sha": CONTENT.hex()}))
    (tmp_path / "c").write_bytes(b"12345" + VECTOR.tobytes() + b"1")
    (tmp_path / "d").write_bytes(VECTOR.astype(np.float16).tobytes())
    (tmp_path / "e").write_bytes(np.nextafter(VECTOR, 9).tobytes() + CONTENT[1:])
    wanted = traces(vectors=[(VECTOR, VECTOR.astype(np.float16))])
    assert kinds(tmp_path, wanted) == {
        ("a", "content"),
        ("b", "content"),
        ("c", "vector"),
        ("d", "vector"),
    }


@pytest.mark.parametrize("compression", ["zstd", "snappy", "none"])
@pytest.mark.parametrize("dictionary", [True, False])
def test_columns_are_searched_as_they_were_before_compression(compression, dictionary, tmp_path):
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(np.tile(VECTOR, 3)), 16)
    table = pa.table(
        {
            "uri": ["/a", NAME, "/b"],
            "sha": pa.array([CONTENT] * 3, pa.binary(32)),
            "uris": [["/c", NAME], [], ["/d"]],
            "embedding": vectors,
        }
    )
    for column in table.column_names:
        pq.write_table(
            table.select([column]),
            tmp_path / f"{column}.parquet",
            compression=compression,
            use_dictionary=dictionary,
        )
    assert kinds(tmp_path) == {
        ("uri.parquet", "name"),
        ("uris.parquet", "name"),
        ("sha.parquet", "content"),
        ("embedding.parquet", "vector"),
    }


def test_members_of_npz_files_are_searched_unpacked(tmp_path):
    np.savez_compressed(tmp_path / "truth.npz", queries=np.stack([VECTOR, VECTOR]))
    np.save(tmp_path / "one.npy", VECTOR)
    assert kinds(tmp_path) == {("truth.npz", "vector"), ("one.npy", "vector")}


def test_file_names_and_links_count_and_links_are_not_followed(tmp_path):
    store, outside = tmp_path / "store", tmp_path / "a name to hide"
    (store / "embeddings").mkdir(parents=True)
    outside.mkdir()
    (outside / "file").write_text("a content to hide")
    (store / "embeddings" / "link").symlink_to(outside)
    (store / "a content to hide").write_text("")
    found = prove(
        open_store(store), traces(names=["a name to hide", "a content to hide"], vectors=[])
    ).finds
    assert found == [
        Find("a content to hide", "name", "a content to hide"),
        Find("embeddings/link", "name", "a name to hide"),
    ]


def test_what_cannot_be_searched_is_no_proof(tmp_path):
    (tmp_path / "ledger.parquet").write_bytes(b"PAR1 and then nothing of the kind PAR1")
    (tmp_path / "truth.npz").write_bytes(b"PK\x03\x04 and then nothing of the kind")
    assert kinds(tmp_path) == {("ledger.parquet", "unreadable"), ("truth.npz", "unreadable")}


def test_a_longer_name_that_lives_is_not_the_name(tmp_path):
    name, living = "/pictures/1.jpg", ["/pictures/1.jpg.bak", "s3:///pictures/1.jpg é"]
    table = pa.table({"uri": [name, *living, "/pictures/2.jpg"]})
    assert sorted(longer_names([table], [name])) == sorted(living)
    pq.write_table(table.slice(1), tmp_path / "ledger.parquet")
    (tmp_path / "report.html").write_text(f"<a>{living[0]}</a> {quote(living[1])}")
    wanted = {"names": [name], "vectors": [], "living": living}
    assert prove(open_store(tmp_path), traces(**wanted)).finds == []
    (tmp_path / "note").write_text(f"{living[0]} {name}.ba")
    assert kinds(tmp_path, traces(**wanted)) == {("note", "name")}


def test_a_short_name_counts_where_it_stands_for_itself(tmp_path):
    wanted = traces(names=["17"], vectors=[])
    (tmp_path / "plain").write_text("1173 17 '17'")
    pq.write_table(pa.table({"uri": ["117", "170"]}), tmp_path / "others.parquet")
    assert kinds(tmp_path, wanted) == set()
    (tmp_path / "some.json").write_text('{"uri": "17"}')
    pq.write_table(pa.table({"uris": [["x", "17"]]}), tmp_path / "own.parquet")
    assert kinds(tmp_path, wanted) == {("some.json", "name"), ("own.parquet", "name")}


def test_a_vector_that_another_image_has_too_tells_nothing(tmp_path):
    _, vectors, _ = make_store(tmp_path, clustered(40, 16), files=2)
    gone = clustered(1, 16, seed=9)[0]
    wanted = traces(names=["/gone.png"], vectors=[(vectors[3],), (gone,)])
    found = prove(open_store(tmp_path), wanted)
    assert (found.finds, found.shared, found.vectors) == ([], 1, 2)
    # of its own row, it would tell
    own = prove(open_store(tmp_path), traces(names=["/pictures/3.png"], vectors=[(vectors[3],)]))
    assert own.shared == 0
    assert {one.kind for one in own.finds} == {"name", "vector"}
    (tmp_path / "left").write_bytes(gone.tobytes())
    assert kinds(tmp_path, wanted) == {("left", "vector")}
