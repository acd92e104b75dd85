"""A run's results as a notebook shows them."""

from __future__ import annotations

from typing import Any, cast

import pandas as pd

from pipelines.reporting.tables import summary
from pipelines.results import Results
from serving.retrieval.notebook import notebook_html


class ShownResults(dict[str, Any]):
    """`Results`: a dictionary as any other, but for what a notebook shows of it."""

    def _repr_html_(self) -> str:
        """The deciding metric of each segment, beside the baselines."""
        results = cast("Results", self)
        table = summary(results)
        rows = [[row.name, *row.cells] for row in table.rows]
        title = f"{results['name']}: test {results['metric']}"
        if (version := results["current_version"]) is not None:
            title += f"; version {version} is current"
        return notebook_html(pd.DataFrame(rows, columns=list(table.columns)), title=title)
