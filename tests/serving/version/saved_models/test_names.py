from __future__ import annotations

import pytest

from serving.version.saved_models.names import check_input_names
from towers.errors import ConfigError


def test_ordinary_column_names_are_accepted() -> None:
    check_input_names(["item_id", "Genres", "price2"])


@pytest.mark.parametrize(
    "names", [["zip code"], ["_x"], ["1x"], ["for"], ["prix €"], ["Zip", "zip"], ["K"], ["exclude"]]
)
def test_names_that_a_saved_model_cannot_have_are_refused(names: list[str]) -> None:
    message = f"^feature '{names[-1]}': expected a .*name of its own, such as name = 'book_author'"
    with pytest.raises(ConfigError, match=message):
        check_input_names(names)
