from __future__ import annotations

import resource
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lookalike.store import shard_format, shards, vector_reader
from lookalike.store.objects import Store, open_store
from lookalike.store.shard_format import ADDRESSES, addresses_of, group_rows
from lookalike.store.vector_reader import VectorReader
from tests.file_records import file_record

FOLDER = Path(__file__).parent / "golden"
GOLDEN_1 = FOLDER / "embedding_shard_v1.parquet"
GOLDEN_2 = FOLDER / "embedding_shard_v2.parquet"
METADATA = pa.schema([("label", pa.string()), ("tags", pa.list_(pa.int64()))])
PROPERTIES = {"lookalike.model_fingerprint": "m" * 64}
DIM = 5
GROUP = 128


def vectors_of(file_no: int, rows: int, dim: int = DIM) -> npt.NDArray[np.float32]:
    return np.random.default_rng(file_no).standard_normal((rows, dim)).astype(np.float32)


def row_of(file_no: int, row: int) -> dict[str, Any]:
    return {
        "uri": f"/{file_no}/{row}.jpg",
        "content_sha256": bytes([file_no % 256, row % 256]) * 16,
        "width": 10 + row,
        "height": 20 + file_no % 1000,
        "format": "JPEG",
        "bytes": 1 << 33,
        "label": None if row % 3 == 0 else f"label {row}",
        "tags": [file_no, row],
    }


def write(store: Path, file_no: int, rows: int, dim: int = DIM, dtype: str = "float32") -> str:
    name = f"embeddings/{file_no:08d}.parquet"
    schema = shard_format.schema(dim, METADATA, PROPERTIES, dtype)
    with shards.open_shard(open_store(store), name, schema, file_no) as (writer, pending):
        for row, vector in enumerate(vectors_of(file_no, rows, dim)):
            assert writer.append(row_of(file_no, row), vector) == file_no << 32 | row
    assert pending.finished == file_record(store, name)
    assert writer.rows == rows
    return name


# two groups and a part, exactly one group, one row, none, and a file number beyond 31 bits
SIZES = {0: 300, 1: GROUP, 2: 1, 5: 0, 2**31 - 1: 129}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, dict[int, str]]:
    root = tmp_path_factory.mktemp("store")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shards, "group_rows", lambda dim, itemsize: GROUP)
        names = {file_no: write(root, file_no, rows) for file_no, rows in SIZES.items()}
    return open_store(root), names


@pytest.fixture
def reader(store: tuple[Store, dict[int, str]]) -> VectorReader:
    return VectorReader(*store)


ALL_IDS = [file_no << 32 | row for file_no, rows in SIZES.items() for row in range(rows)]


def expected_vectors(ids: list[int]) -> npt.NDArray[np.float32]:
    written = {file_no: vectors_of(file_no, rows) for file_no, rows in SIZES.items()}
    return np.array([written[i >> 32][i & 0xFFFFFFFF] for i in ids]).reshape(-1, DIM)


# --- the file ---------------------------------------------------------------------------------


def test_schema_is_the_documented_one(store: tuple[Store, dict[int, str]]) -> None:
    for name in store[1].values():
        found = pq.read_schema(store[0].local(name))
        assert [(column.name, str(column.type)) for column in found] == [
            ("id", "int64"),
            ("uri", "string"),
            ("content_sha256", "fixed_size_binary[32]"),
            ("width", "int32"),
            ("height", "int32"),
            ("format", "string"),
            ("bytes", "int64"),
            ("label", "string"),
            ("tags", "list<element: int64>"),
            ("embedding", f"fixed_size_list<element: float>[{DIM}]"),
        ]
        assert found.metadata[b"lookalike.schema_version"] == b"2"
        assert found.metadata[b"lookalike.model_fingerprint"] == b"m" * 64


def test_any_parquet_reader_gives_the_rows_back(store: tuple[Store, dict[int, str]]) -> None:
    for file_no, name in store[1].items():
        rows = pq.read_table(store[0].local(name)).to_pylist()
        vectors = [row.pop("embedding") for row in rows]
        assert rows == [
            {"id": file_no << 32 | i, **row_of(file_no, i)} for i in range(SIZES[file_no])
        ]
        assert np.array_equal(
            np.array(vectors, dtype=np.float32).reshape(-1, DIM), vectors_of(file_no, len(rows))
        )


def test_vectors_are_stored_plain(store: tuple[Store, dict[int, str]]) -> None:
    footer = pq.read_metadata(store[0].local(store[1][0]))
    assert [footer.row_group(i).num_rows for i in range(footer.num_row_groups)] == [128, 128, 44]
    for group in range(footer.num_row_groups):
        columns = [footer.row_group(group).column(i) for i in range(footer.num_columns)]
        [vectors] = [column for column in columns if column.path_in_schema.startswith("embedding")]
        assert not vectors.has_dictionary_page
        assert not vectors.is_stats_set
        assert vectors.compression == "UNCOMPRESSED"
        assert "PLAIN" in vectors.encodings
        assert not {"PLAIN_DICTIONARY", "RLE_DICTIONARY"} & set(vectors.encodings)


def test_an_exception_leaves_no_shard(tmp_path: Path) -> None:
    def interrupted() -> None:
        schema = shard_format.schema(DIM, METADATA, {})
        with shards.open_shard(open_store(tmp_path), "x.parquet", schema, 0) as (writer, _):
            for row in range(200):
                writer.append(row_of(0, row), np.zeros(DIM, np.float32))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list(tmp_path.iterdir()) == []


def test_streams_over_a_shard(store: tuple[Store, dict[int, str]]) -> None:
    for file_no, name in store[1].items():
        path, rows = store[0].local(name), SIZES[file_no]
        ids = [file_no << 32 | row for row in range(rows)]
        blocks = list(shards.iter_blocks(path))
        assert [i for block, _ in blocks for i in block.tolist()] == ids
        assert all(vectors.dtype == np.float32 for _, vectors in blocks)
        found = [vectors for _, vectors in blocks] or [np.empty((0, DIM), np.float32)]
        assert np.array_equal(np.concatenate(found), vectors_of(file_no, rows))
        assert [row["uri"] for row in shards.iter_rows(path, ["uri"])] == [
            f"/{file_no}/{row}.jpg" for row in range(rows)
        ]
        assert shards.count_rows(path) == rows


# --- rows by id -------------------------------------------------------------------------------


@given(ids=st.lists(st.sampled_from(ALL_IDS), max_size=60))
def test_vectors_come_in_the_order_asked_for(
    store: tuple[Store, dict[int, str]], ids: list[int]
) -> None:
    found = VectorReader(*store).vectors(np.array(ids, dtype=np.int64))
    assert found.dtype == np.float32
    assert np.array_equal(found.reshape(-1, DIM), expected_vectors(ids))


@given(ids=st.lists(st.sampled_from(ALL_IDS), max_size=30))
def test_rows_come_in_the_order_asked_for(
    store: tuple[Store, dict[int, str]], ids: list[int]
) -> None:
    found = VectorReader(*store).rows(ids)
    assert found == [{"id": i, **row_of(i >> 32, i & 0xFFFFFFFF)} for i in ids]


@given(ids=st.lists(st.sampled_from(ALL_IDS), max_size=60))
def test_what_describes_rows_is_their_name_and_metadata(
    store: tuple[Store, dict[int, str]], ids: list[int]
) -> None:
    found = VectorReader(*store).described(np.array(ids, dtype=np.int64))
    whole = [row_of(i >> 32, i & 0xFFFFFFFF) for i in ids]
    assert found == [{name: row[name] for name in ("uri", "label", "tags")} for row in whole]


@pytest.mark.parametrize("count", [1, 3, 40])
def test_columns_may_be_named_in_any_order(reader: VectorReader, count: int) -> None:
    ids = ALL_IDS[130 : 130 + count]
    expected = [row_of(i >> 32, i & 0xFFFFFFFF) for i in ids]
    for names in (("tags", "uri"), ("height", "label", "bytes"), ("uri",)):
        found = reader.rows(ids, names)
        assert found == [{name: row[name] for name in names} for row in expected]


def test_every_vector_at_once_and_again(reader: VectorReader) -> None:
    ids = np.random.default_rng(0).permutation(np.array(ALL_IDS * 2, dtype=np.int64))
    for _ in range(2):
        assert np.array_equal(reader.vectors(ids), expected_vectors(ids.tolist()))


def test_metadata_columns(reader: VectorReader) -> None:
    # Parquet names the items of a list "element"
    names_and_types = [(column.name, str(column.type)) for column in reader.metadata_schema()]
    assert names_and_types == [("label", "string"), ("tags", "list<element: int64>")]
    assert VectorReader(open_store(Path("nowhere")), {}).metadata_schema() == pa.schema([])


def test_threads_share_a_reader(reader: VectorReader) -> None:
    def check(seed: int) -> bool:
        random = np.random.default_rng(seed)
        ids = random.choice(np.array(ALL_IDS, dtype=np.int64), 50)
        rows = [row["id"] for row in reader.rows(ids.tolist())]
        same = np.array_equal(reader.vectors(ids), expected_vectors(ids.tolist()))
        return bool(same and rows == ids.tolist())

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(check, range(60)))


@pytest.fixture
def few_open_files() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(256, soft), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("few_open_files")
@pytest.mark.parametrize("others", [0, 160])
def test_a_store_of_more_files_than_may_be_open(others: int, tmp_path: Path) -> None:
    files = {file_no: write(tmp_path, file_no, 1, dim=2) for file_no in range(400)}
    with ExitStack() as stack:
        for _ in range(others - open_files()):  # tests before this one may have left some
            stack.enter_context(open(tmp_path / files[0], "rb"))
        reader, before = VectorReader(open_store(tmp_path), files), open_files()
        numbers = (*range(400), *range(0, 400, 7))
        ids = np.array([file_no << 32 for file_no in numbers], dtype=np.int64)
        expected = np.concatenate([vectors_of(i >> 32, 1, 2) for i in ids.tolist()])
        assert np.array_equal(reader.vectors(ids), expected)
        assert [row["id"] for row in reader.rows(ids.tolist())] == ids.tolist()
        assert open_files() < before + 200


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


# --- vectors in place -------------------------------------------------------------------------


def by_decoding(path: Path) -> npt.NDArray[np.float32]:
    """The vectors as pyarrow reads them."""
    column = pq.read_table(path)["embedding"].combine_chunks()
    return column.flatten().to_numpy().astype(np.float32).reshape(len(column), -1)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize(
    ("rows", "dim"),
    [(1, 1), (1, 1280), (5000, 1), (2048, 64), (2049, 64), (2000, 1280), (300, 5000)],
)
def test_addresses_lead_to_what_a_decoder_reads(
    tmp_path: Path, rows: int, dim: int, dtype: str
) -> None:
    vectors = vectors_of(1, rows, dim)
    schema = shard_format.schema(dim, METADATA, {}, dtype)
    with shards.open_shard(open_store(tmp_path), "s.parquet", schema, 1) as (writer, _):
        uris = pa.array([f"{'x' * (row % 7)}{row}" for row in range(rows)])  # of odd lengths
        ids = writer.append_block(pa.table({"uri": uris}), vectors)
    path = tmp_path / "s.parquet"
    addresses = addresses_of(pq.read_metadata(path), str(path), path.stat().st_size)
    assert addresses is not None
    footer = pq.read_metadata(path)
    group = group_rows(dim, np.dtype(dtype).itemsize)
    assert len(addresses.starts) == footer.num_row_groups == -(-rows // group)
    expected = by_decoding(path)
    assert np.array_equal(expected, vectors.astype(dtype).astype(np.float32))
    order = np.random.default_rng(0).permutation(np.concatenate([ids, ids[:3]]))
    found = VectorReader(open_store(tmp_path), {1: "s.parquet"}).vectors(order)
    assert found.dtype == np.float32
    assert np.array_equal(found, expected[order - (1 << 32)])
    assert np.array_equal(
        np.concatenate([block for _, block in shards.iter_blocks(path)]), expected
    )
    assert all(len(block) <= 8192 for block, _ in shards.iter_blocks(path))


def test_rows_and_blocks_of_rows_may_be_mixed(tmp_path: Path) -> None:
    vectors = vectors_of(2, 700)
    schema = shard_format.schema(DIM, METADATA, {})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shards, "group_rows", lambda dim, itemsize: GROUP)
        with shards.open_shard(open_store(tmp_path), "s.parquet", schema, 2) as (writer, _):
            for row in range(150):
                writer.append(row_of(2, row), vectors[row])
            rows = [row_of(2, row) for row in range(150, 690)]
            ids = writer.append_block(pa.Table.from_pylist(rows), vectors[150:690])
            for row in range(690, 700):
                writer.append(row_of(2, row), vectors[row])
    assert ids.tolist() == [2 << 32 | row for row in range(150, 690)]
    reader = VectorReader(open_store(tmp_path), {2: "s.parquet"})
    every = [2 << 32 | row for row in range(700)]
    assert np.array_equal(reader.vectors(np.array(every)), vectors)
    assert reader.rows(every) == [{"id": i, **row_of(2, i & 0xFFFFFFFF)} for i in every]


def test_columns_that_are_missing_are_null(tmp_path: Path) -> None:
    schema = shard_format.schema(2, METADATA, {})
    with shards.open_shard(open_store(tmp_path), "s.parquet", schema, 0) as (writer, _):
        writer.append_block(pa.table({"uri": ["a"]}), np.ones((1, 2)))
        with pytest.raises(ValueError, match=r"shape \(1, 2\), got \(1, 3\)"):
            writer.append_block(pa.table({"uri": ["a"]}), np.ones((1, 3)))
    [row] = VectorReader(open_store(tmp_path), {0: "s.parquet"}).rows([0])
    assert row == dict.fromkeys(row, None) | {"id": 0, "uri": "a"}
    assert VectorReader(open_store(tmp_path), {0: "s.parquet"}).rows([0], ["uri"]) == [{"uri": "a"}]


def test_a_schema_that_was_read_brings_no_addresses(tmp_path: Path) -> None:
    first = tmp_path / write(tmp_path, 3, 100)
    schema = pq.read_schema(first)
    with shards.open_shard(open_store(tmp_path), "s.parquet", schema, 3) as (writer, _):
        writer.append(row_of(3, 7), vectors_of(3, 100)[7])
    assert pq.read_schema(tmp_path / "s.parquet").metadata[b"lookalike.model_fingerprint"]
    found = VectorReader(open_store(tmp_path), {3: "s.parquet"}).vectors(np.array([3 << 32]))
    assert np.array_equal(found, vectors_of(3, 100)[7:8])


def test_another_layout_has_no_addresses_but_the_same_vectors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards, "_ONE_PAGE", 64)  # several pages in a row group
    name = write(tmp_path, 3, 3000)
    assert (
        addresses_of(pq.read_metadata(tmp_path / name), name, (tmp_path / name).stat().st_size)
        is None
    )
    reader = VectorReader(open_store(tmp_path), {3: name})
    ids = np.array([3 << 32 | row for row in (2999, 0, 1500)])
    assert np.array_equal(reader.vectors(ids), vectors_of(3, 3000)[[2999, 0, 1500]])
    blocks = [block for _, block in shards.iter_blocks(tmp_path / name)]
    assert np.array_equal(np.concatenate(blocks), vectors_of(3, 3000))


def test_addresses_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    path = tmp_path / write(tmp_path, 3, 100)
    data = path.read_bytes()
    addresses = addresses_of(pq.read_metadata(path), str(path), path.stat().st_size)
    assert addresses is not None
    start = b'"starts":[%d]' % addresses.starts[0]
    assert start in data
    path.write_bytes(data.replace(start, start[:10] + b"9" * (len(start) - 11) + b"]"))
    assert 10 ** (len(start) - 11) - 1 + 100 * DIM * 4 > len(data)
    with pytest.raises(ValueError, match=f"{path}: its vector addresses do not fit it"):
        addresses_of(pq.read_metadata(path), str(path), path.stat().st_size)


def test_a_row_beyond_the_end_is_refused(reader: VectorReader) -> None:
    with pytest.raises(IndexError, match="no row 300, it has 300"):
        reader.vectors(np.array([300]))


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc")
def test_what_was_read_does_not_stay_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vector_reader, "_RESIDENT_BYTES", 8 << 20)
    vectors = np.ones((60_000, 256), np.float32)  # 60 MB
    with shards.open_shard(
        open_store(tmp_path), "s.parquet", shard_format.schema(256, METADATA, {}), 0
    ) as (
        writer,
        _,
    ):
        ids = writer.append_block(pa.table({"uri": ["x"] * 60_000}), vectors)
    reader = VectorReader(open_store(tmp_path), {0: "s.parquet"})

    def shared() -> int:
        """Resident bytes of mapped files."""
        return int(Path("/proc/self/statm").read_text().split()[2]) * resource.getpagesize()

    reader.vectors(ids[:1])
    before = shared()
    most = 0
    for start in range(0, len(ids), 2000):
        reader.vectors(ids[start : start + 2000])
        most = max(most, shared() - before)
    assert most < 32 << 20


# --- the format does not change ---------------------------------------------------------------


@pytest.mark.parametrize("golden", [GOLDEN_1, GOLDEN_2])
def test_shards_of_every_version_stay_readable(golden: Path) -> None:
    """The golden files are `write(…, file_no=3, rows=130, dim=2)` by the versions' writers."""
    assert np.array_equal(
        np.concatenate([vectors for _, vectors in shards.iter_blocks(golden)]),
        vectors_of(3, 130, 2),
    )
    reader = VectorReader(open_store(golden.parent), {3: golden.name})
    ids = [3 << 32 | row for row in (129, 0, 128, 127)]
    assert reader.rows(ids) == [{"id": i, **row_of(3, i & 0xFFFFFFFF)} for i in ids]
    assert np.array_equal(
        reader.vectors(np.array(ids, dtype=np.int64)), vectors_of(3, 130, 2)[[129, 0, 128, 127]]
    )
    assert (addresses_of(pq.read_metadata(golden), str(golden), golden.stat().st_size) is None) == (
        golden == GOLDEN_1
    )


def test_shards_are_still_written_as_version_2(tmp_path: Path) -> None:
    written = tmp_path / write(tmp_path, 3, 130, dim=2)
    assert pq.read_schema(written).equals(pq.read_schema(GOLDEN_2))
    kept = b"lookalike."
    found, expected = (
        {
            key: value
            for key, value in (pq.read_schema(path).metadata or {}).items()
            if key.startswith(kept) and key != ADDRESSES.encode()
        }
        for path in (written, GOLDEN_2)
    )
    assert found == expected
    assert pq.read_table(written).equals(pq.read_table(GOLDEN_2))
