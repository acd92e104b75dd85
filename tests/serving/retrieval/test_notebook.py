from __future__ import annotations

import numpy as np
import pandas as pd

from serving.retrieval.notebook import SHOWN_ROWS, notebook_html
from serving.retrieval.questions import Hits


def test_texts_are_escaped_and_what_is_not_shown_is_counted() -> None:
    frame = pd.DataFrame({"<i>name</i>": ["<script>alert(1)</script>"] * (SHOWN_ROWS + 3)})
    html = notebook_html(frame, title="a < b")
    assert "<script>" not in html
    assert "<i>" not in html
    assert html.count("&lt;script&gt;") == SHOWN_ROWS
    assert "a &lt; b" in html
    assert "and 3 more" in html
    assert "more" not in notebook_html(frame.head(2))


def test_hits_become_a_row_each_without_the_padding() -> None:
    hits = Hits(
        ids=np.array([["b", "a"], ["c", ""]], dtype=object),
        scores=np.array([[2.0, 1.0], [0.5, -np.inf]], dtype=np.float32),
        rows=np.array([[1, 0], [2, -1]]),
    )
    assert hits.to_frame().to_dict("list") == {
        "query": [0, 0, 1],
        "rank": [1, 2, 1],
        "id": ["b", "a", "c"],
        "score": [2.0, 1.0, 0.5],
    }
    assert hits._repr_html_().count("<td>") == 12
