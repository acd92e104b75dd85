from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.version.vocabulary_files import read_vocabulary, write_vocabulary
from tests.examples import examples
from towers.errors import BundleError
from towers.features.vocabulary import Buckets, Hashed, Scalar, Space, Tokens, Vocabulary

INT64 = np.iinfo(np.int64)
counts = st.integers(0, INT64.max)
text = st.text(st.characters(codec="utf-8"))  # UTF-8 writes no half of a surrogate pair
numbers = st.floats(allow_nan=False, width=32)


def tokens(values: list[Any], *, rows: list[int], counts: list[int], oov_row: int = 0) -> Tokens:
    dtype = np.int64 if values and isinstance(values[0], int) else object
    return Tokens(
        tokens=np.array(values, dtype=dtype),
        rows=np.array(rows, dtype=np.int64),
        counts=np.array(counts, dtype=np.int64),
        oov_row=oov_row,
    )


@st.composite
def token_spaces(draw: st.DrawFn) -> Tokens:
    ids = st.integers(INT64.min, INT64.max)
    values = draw(st.one_of(st.lists(text, unique=True), st.lists(ids, unique=True)))
    n = len(values)
    rows = draw(st.lists(counts, min_size=n, max_size=n))
    return tokens(
        values,
        rows=rows,
        counts=draw(st.lists(counts, min_size=n, max_size=n)),
        oov_row=draw(counts),
    )


spaces = st.one_of(
    token_spaces(),
    st.builds(Hashed, first_row=counts, buckets=counts),
    st.builds(
        Scalar,
        row=counts,
        mean=st.floats(allow_nan=False, allow_infinity=False),
        std=st.floats(min_value=0.0, exclude_min=True, allow_infinity=False),
    ),
    st.builds(Buckets, first_row=counts, boundaries=st.lists(numbers).map(tuple)),
)


def plain(space: Space) -> Any:
    """The same as a value that can be compared."""
    if not isinstance(space, Tokens):
        return space
    kept = [space.tokens, space.rows, space.counts]
    return [(array.dtype, array.tolist()) for array in kept], space.oov_row, space.is_integer


@given(spaces=st.dictionaries(text, spaces, max_size=5), n_rows=counts)
@settings(max_examples=examples(80))
def test_what_is_read_is_what_was_written(spaces: dict[str, Space], n_rows: int) -> None:
    with TemporaryDirectory() as parent:
        folder = Path(parent, "versions", "vocabulary")
        write_vocabulary(Vocabulary(spaces=spaces, n_rows=n_rows), folder)
        read = read_vocabulary(folder)
    assert read.n_rows == n_rows
    assert list(read.spaces) == list(spaces)
    for name, space in spaces.items():
        assert plain(read.spaces[name]) == plain(space)


@pytest.mark.parametrize(
    "values",
    [
        [
            "two\nlines",
            "two\r\nlines",
            "a\0b",
            " ",
            "tab\t",
            '"',
            "e\u0301",
            "\u00e9",
            "🎈",
            "None",
        ],
        [INT64.min, -1, 0, 2**53 + 1, INT64.max],
        [],
    ],
)
def test_tokens_keep_their_type_and_every_character(values: list[Any], tmp_path: Path) -> None:
    n = len(values)
    space = tokens(values, rows=list(range(1, n + 1)), counts=[7] * n)
    write_vocabulary(Vocabulary(spaces={"item.id": space}, n_rows=n + 1), tmp_path / "v")
    read = read_vocabulary(tmp_path / "v").tokens("item.id")
    assert plain(read) == plain(space)
    assert read.tokens.tolist() == values


def test_integer_space_without_tokens_stays_one_of_integers(tmp_path: Path) -> None:
    none = np.empty(0, dtype=np.int64)
    space = Tokens(tokens=none, rows=none, counts=none, oov_row=3)
    write_vocabulary(Vocabulary(spaces={"user.id": space}, n_rows=4), tmp_path / "v")
    assert read_vocabulary(tmp_path / "v").tokens("user.id").is_integer


def test_tokens_are_a_table_that_others_can_read(tmp_path: Path) -> None:
    space = tokens(["b", "a"], rows=[2, 1], counts=[5, 9])
    write_vocabulary(Vocabulary(spaces={"item.id": space}, n_rows=3), tmp_path / "v")
    [file] = (tmp_path / "v").glob("*.parquet")
    table = pq.read_table(file)
    assert table.schema.types == [pa.string(), pa.int64(), pa.int64()]
    assert table.to_pydict() == {"token": ["b", "a"], "row": [2, 1], "count": [5, 9]}


@pytest.mark.parametrize("factor", [1.0, 1.7])
def test_a_factor_of_features_is_refused_unless_it_does_nothing(
    tmp_path: Path, factor: float
) -> None:
    """Versions were published for a while whose encoders multiplied by it."""
    vocabulary = Vocabulary(spaces={"user.age": Hashed(first_row=0, buckets=2)}, n_rows=2)
    write_vocabulary(vocabulary, tmp_path / "v")
    path = tmp_path / "v" / "vocabulary.json"
    body = json.loads(path.read_text(encoding="utf-8")) | {"unknown_item_scale": factor}
    path.write_text(json.dumps(body), encoding="utf-8")
    if factor == 1.0:
        assert read_vocabulary(tmp_path / "v").n_rows == 2
    else:
        with pytest.raises(BundleError, match=r"a factor of 1\.7 .*; publish again"):
            read_vocabulary(tmp_path / "v")


def test_existing_vocabulary_is_not_written_over(tmp_path: Path) -> None:
    vocabulary = Vocabulary(spaces={"user.age": Hashed(first_row=0, buckets=2)}, n_rows=2)
    write_vocabulary(vocabulary, tmp_path / "v")
    with pytest.raises(FileExistsError):
        write_vocabulary(vocabulary, tmp_path / "v")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "3",
        "{}",
        '{"n_rows": 1}',
        '{"n_rows": 1, "spaces": []}',
        '{"n_rows": 1, "spaces": {"a": "tokens"}}',
        '{"n_rows": 1, "spaces": {"a": {}}}',
        '{"n_rows": 1, "spaces": {"a": {"kind": "other"}}}',
        '{"n_rows": 1, "spaces": {"a": {"kind": "hashed", "first_row": 1}}}',
        '{"n_rows": 1, "spaces": {"a": {"kind": "tokens", "file": "no.parquet", "oov_row": 0}}}',
        '{"n_rows": 1, "spaces": {"a": {"kind": "tokens", "oov_row": 0}}}',
        '{"spaces": {}}',
        "\udcff",
    ],
)
def test_file_that_is_no_vocabulary_is_refused_by_name(text: str, tmp_path: Path) -> None:
    path = tmp_path / "vocabulary.json"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(BundleError, match=r"vocabulary\.json: expected a vocabulary"):
        read_vocabulary(tmp_path)


def test_missing_vocabulary_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"vocabulary\.json: expected a vocabulary"):
        read_vocabulary(tmp_path)


@pytest.mark.parametrize("table", [b"", b"PAR1 but nothing else", None])
def test_damaged_tokens_are_refused(table: bytes | None, tmp_path: Path) -> None:
    space = tokens(["b", "a"], rows=[2, 1], counts=[5, 9])
    write_vocabulary(Vocabulary(spaces={"item.id": space}, n_rows=3), tmp_path / "v")
    [file] = (tmp_path / "v").glob("*.parquet")
    if table is None:
        pq.write_table(pa.table({"token": ["a"]}), file)
    else:
        file.write_bytes(table)
    with pytest.raises(BundleError, match=r"expected a vocabulary, received"):
        read_vocabulary(tmp_path / "v")
