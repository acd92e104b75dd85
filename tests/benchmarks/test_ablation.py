from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.ablation import main, pending, read_cells, run_grid
from benchmarks.ablation_cells import METRICS, Cell
from benchmarks.ablation_fits import Bench, SeedFits
from benchmarks.ablation_table import (
    mean_and_deviation,
    paired_difference,
    replace_section,
    table,
)
from benchmarks.ablation_variants import SETUPS, VARIANTS, median_share
from pipelines.config import RunConfig
from pipelines.data.prepare import prepare
from pipelines.training.folds import FoldBatches
from pipelines.training.mine import mine_fitted
from towers.errors import ConfigError, DataError
from towers.typed import parse

N_USERS, N_ITEMS = 80, 600
ONLY = ("base", "mined-50-500")

SETTINGS: dict[str, Any] = {
    "seed": 5,
    "data": {"interactions": {}, "items": {"id": "item_id"}},
    "split": {"by": "random"},
    "model": {"embedding_dim": 4},
    "training": {"epochs": 1, "batch_size": 128},
    "evaluation": {"k": [20], "metric": "recall@20"},
}


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """Users with about eight items each, popular ones more often."""
    rng = np.random.default_rng(1)
    chance = 30.0 / (np.arange(N_ITEMS) + 30)
    user, item = np.nonzero(rng.random((N_USERS, N_ITEMS)) < chance * 8 / chance.sum())
    frame = pd.DataFrame({"user_id": user, "item_id": item})
    config = parse(RunConfig, SETTINGS, where="tiny")
    items = pd.DataFrame({"item_id": np.arange(N_ITEMS)})
    folder = tmp_path_factory.mktemp("bench") / "prepared"
    prepared = prepare(config, folder, frames={"interactions": frame, "items": items})
    return Bench.build("gowalla", config, prepared=prepared)


@pytest.fixture(scope="module")
def sample(bench: Bench) -> int:
    """What a uniform sample of so small a corpus is cut down to: a quarter of the chosen items."""
    return int(np.count_nonzero(bench.dataset.interactions.item_counts)) // 4


@pytest.fixture(scope="module")
def measured(bench: Bench, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A folder with two cells of one seed, and what was said. For reading only."""
    root = tmp_path_factory.mktemp("ablation")
    lines: list[str] = []
    run_grid([bench], root=root, seeds=[0], only=ONLY, again=False, say=lines.append)
    return root, lines


@pytest.mark.parametrize("name", SETUPS)
def test_setup_is_its_run_file_but_for_what_it_names(name: str) -> None:
    config = SETUPS[name].load(epochs=2)
    assert config.name == name
    assert (config.training.epochs, config.evaluation.metric) == (2, "recall@20")
    assert SETUPS[name].load().training.epochs == SETUPS[name].epochs


def test_every_variant_is_a_configuration_of_its_own(bench: Bench) -> None:
    configs = {
        json.dumps(
            [
                dataclasses.asdict(bench.configure(variant, seed=0)),
                variant.mining and variant.mining.miner,
            ]
        )
        for variant in VARIANTS.values()
    }
    assert len(configs) == len(VARIANTS)
    assert all(name == variant.name for name, variant in VARIANTS.items())


def test_base_is_what_the_run_file_says_without_mining(bench: Bench) -> None:
    training = bench.config.training
    negatives = dataclasses.replace(training.negatives, mined=0)
    expected = dataclasses.replace(training, negatives=negatives)
    assert bench.configure(VARIANTS["base"], seed=5).training == expected


def test_miners_come_before_those_they_mine_for() -> None:
    names = list(VARIANTS)
    miners = {name: one.mining.miner for name, one in VARIANTS.items() if one.mining}
    assert miners
    assert all(names.index(miner) < names.index(name) for name, miner in miners.items())


@pytest.mark.parametrize(("name", "factor"), [("hardest-x0.5", 0.5), ("hardest-x2", 2.0)])
def test_hardest_is_a_multiple_of_the_automatic_number_within_the_sample(
    bench: Bench, sample: int, name: str, factor: float
) -> None:
    automatic = FoldBatches.build(bench.dataset, bench.config.training, mined=None, seed=0).hardest
    hardest = bench.configure(VARIANTS[name], seed=0).training.negatives.hardest
    assert hardest == min(round(factor * automatic), sample)


def test_the_mean_over_all_counts_mined_negatives_too(bench: Bench) -> None:
    plain, mined = (
        bench.configure(VARIANTS[name], seed=0) for name in ("few-all", "few-all-mined")
    )
    batches = FoldBatches.build(bench.dataset, plain.training, mined=None, seed=0)
    assert plain.training.negatives.hardest == batches.sampler.uniform
    assert mined.training.negatives.hardest == batches.sampler.uniform + 16


@pytest.mark.parametrize(("name", "power"), [("popular-half-1", 1.0), ("popular-half-0.5", 0.5)])
def test_popular_negatives_leave_the_sample_as_large_as_it_is(
    bench: Bench, sample: int, name: str, power: float
) -> None:
    negatives = bench.configure(VARIANTS[name], seed=0).training.negatives
    assert negatives.uniform + negatives.popularity == sample
    assert abs(negatives.uniform - negatives.popularity) <= 1
    assert negatives.popularity_power == power


def test_suppression_keeps_about_half_of_the_positives(bench: Bench) -> None:
    config = bench.configure(VARIANTS["suppress-0.11"], seed=0)
    keep = FoldBatches.build(bench.dataset, config.training, mined=None, seed=0).keep
    popularity = bench.dataset.interactions.item_counts
    assert 0.4 < np.average(keep, weights=popularity) < 0.65


@given(st.lists(st.integers(0, 50), min_size=1).filter(any))
def test_half_of_the_interactions_are_with_items_of_a_lower_or_the_median_share(
    counts: list[int],
) -> None:
    popularity = np.array(counts)
    shares = popularity / popularity.sum()
    median = median_share(popularity)
    assert shares[shares <= median + 1e-9].sum() >= 0.5 - 1e-9
    assert shares[shares < median - 1e-9].sum() <= 0.5 + 1e-9


@pytest.mark.slow
def test_cells_are_kept_with_their_figures(bench: Bench, measured: tuple[Path, list[str]]) -> None:
    base, mined = (
        Cell.read(Cell.path(measured[0], data="gowalla", variant=name, seed=0)) for name in ONLY
    )
    n_users = np.count_nonzero(np.diff(bench.test.indptr))
    assert base.users == {"all": n_users, "warm_users": n_users}
    assert set(base.figures["all"]) == set(METRICS)
    assert 0 < base.figures["all"]["recall@20"] < 1
    assert (base.mined_share, base.seconds_before) == (0, 0)
    assert mined.mined_share > 0
    assert mined.seconds_before > base.seconds
    assert mined.settings["training"]["negatives"]["mined_ranks"] == [50, 500]
    assert bench.config.seed != base.settings["seed"] == 0


@pytest.mark.slow
def test_what_is_there_is_not_measured_again(
    bench: Bench, measured: tuple[Path, list[str]]
) -> None:
    root, said = measured
    assert said[0] == "2 of 2 cells to measure"
    assert said[2].startswith("2/2 gowalla mined-50-500 seed 0: recall 0.")
    assert said[2].endswith("about 0 min left")
    before = {path: path.read_bytes() for path in root.rglob("*.json")}
    lines: list[str] = []
    run_grid([bench], root=root, seeds=[0], only=ONLY, again=False, say=lines.append)
    assert lines == ["0 of 2 cells to measure"]
    assert {path: path.read_bytes() for path in root.rglob("*") if path.is_file()} == before


@pytest.mark.slow
def test_cells_of_other_seeds_and_settings_are_measured(
    bench: Bench, measured: tuple[Path, list[str]]
) -> None:
    root = measured[0]
    keys = pending(bench, root=root, seeds=[0, 1], only=ONLY, again=False)
    assert keys == [("base", 1), ("mined-50-500", 1)]
    training = dataclasses.replace(bench.config.training, epochs=2)
    longer = dataclasses.replace(bench, config=dataclasses.replace(bench.config, training=training))
    for other, again in ((longer, False), (bench, True)):
        assert pending(other, root=root, seeds=[0], only=ONLY, again=again) == [
            ("base", 0),
            ("mined-50-500", 0),
        ]


@pytest.mark.slow
def test_windows_are_what_mining_those_ranks_gives(bench: Bench) -> None:
    fits = SeedFits(bench=bench, seed=0)
    model = fits.fit(VARIANTS["base"]).fitted.model
    for name, ranks in (("mined-20-100", (20, 100)), ("mined-50-500", (50, 500))):
        expected = mine_fitted(
            model, bench.dataset, ranks=ranks, version=0, seed=0, advance=lambda _: None
        )
        mined, _ = fits.mine(VARIANTS[name])
        assert mined is not None
        assert mined.ranks == ranks
        np.testing.assert_array_equal(mined.items, expected.items)


def test_a_damaged_cell_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "base-0.json"
    path.write_text('{"data": "gowalla"}', encoding="utf-8")
    with pytest.raises(ConfigError, match=r"base-0\.json: 8 problem\(s\)\n  variant: required"):
        Cell.read(path)


def test_no_cells_is_an_error_that_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"found none; run `python -m benchmarks\.ablation`"):
        read_cells(tmp_path)


def cell(variant: str, seed: int, recall: float, *, epochs: int = 6, cold: bool = False) -> Cell:
    figures = dict(zip(METRICS, (recall, 0.1, 0.25, 100.0), strict=True))
    segments = ["all", "warm_users", *(["cold_users"] if cold else [])]
    return Cell(
        data="movielens-1m" if cold else "gowalla",
        variant=variant,
        seed=seed,
        settings={"seed": seed, "training": {"epochs": epochs, "negatives": {"mined": seed}}},
        users=dict.fromkeys(segments, 1000),
        figures=dict.fromkeys(segments, figures),
        seconds=30.0,
        seconds_before=10.0,
        mined_share=0.05,
    )


BASES = [cell("base", 0, 0.10), cell("base", 1, 0.12), cell("base", 2, 0.14)]
OTHERS = [cell("hardest-x2", 0, 0.11), cell("hardest-x2", 1, 0.12), cell("hardest-x2", 2, 0.16)]


def test_spread_is_the_sample_standard_deviation() -> None:
    assert mean_and_deviation([1.0, 2.0, 6.0]) == pytest.approx((3.0, math.sqrt(7)))
    mean, deviation = mean_and_deviation([4.0])
    assert mean == 4.0
    assert math.isnan(deviation)
    assert math.isnan(mean_and_deviation([])[0])


def test_difference_is_paired_by_seed() -> None:
    values, base = {0: 1.0, 1: 5.0, 2: 9.0, 7: 99.0}, {2: 8.0, 1: 3.0, 0: 1.0, 5: 77.0}
    mean, error = paired_difference(values, base)
    assert mean == pytest.approx(1.0)  # of 0, 2 and 1
    assert error == pytest.approx(1.0 / math.sqrt(3))
    assert math.isnan(paired_difference(values, {})[0])


def test_table_shows_mean_spread_and_difference() -> None:
    text = table([*OTHERS, *BASES])
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith("| ")]
    assert [row[1] for row in rows] == ["variant", "---", "`base`", "`hardest-x2`"]
    assert rows[2][3:6] == ["3", "0.1200 ± 0.0200", ""]
    # differences .01, 0, .02: deviation .01, error .01 / sqrt(3)
    assert rows[3][3:6] == ["3", "0.1300 ± 0.0265", "+0.0100 ± 0.0058"]
    assert rows[3][8:] == ["0.250 ± 0.000", "100 ± 0", "30", "10", "5% |"]
    assert "seeds 0, 1, 2: recall@20 0.1200 (0.1000 to 0.1400)" in text
    assert "### Negatives on Gowalla" in text
    assert "Warm users" not in text  # all are


def test_table_tells_users_apart_where_some_are_cold() -> None:
    text = table([cell("base", 0, 0.1, cold=True)])
    titles = [line for line in text.splitlines() if line.endswith("(1,000):")]
    assert titles == ["All users (1,000):", "Warm users (1,000):", "Cold users (1,000):"]
    assert "±" not in text.partition("### ")[2]  # one seed has no spread


def test_table_refuses_cells_of_other_settings() -> None:
    with pytest.raises(DataError, match=r"hardest-x2-1 and base-0 differ in more; measure"):
        table([*BASES, cell("hardest-x2", 1, 0.1, epochs=7)])


def test_command_writes_the_tables_of_what_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for one in [*BASES, *OTHERS]:
        one.write(tmp_path)
    page = tmp_path / "page.md"
    arguments = ["--table", "--out", str(tmp_path), "--docs", str(page)]
    monkeypatch.setattr("sys.argv", ["ablation", *arguments])
    main()
    text = table([*BASES, *OTHERS])
    assert text in page.read_text(encoding="utf-8")
    assert capsys.readouterr().out == f"{text}\nwritten to {page}\n"


def test_section_is_added_once_and_replaced_in_place(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# Title\n\n<!-- other:begin -->\nkept\n<!-- other:end -->\n", encoding="utf-8")
    before = page.read_text(encoding="utf-8")
    replace_section(page, "ablation", "first")
    section = "\n<!-- ablation:begin -->\n\n{}\n\n<!-- ablation:end -->\n"
    assert page.read_text(encoding="utf-8") == before + section.format("first")
    page.write_text(page.read_text(encoding="utf-8") + "after\n", encoding="utf-8")
    replace_section(page, "ablation", "second")
    expected = before + section.format("second") + "after\n"
    assert page.read_text(encoding="utf-8") == expected


@pytest.mark.parametrize(
    "markers", ["<!-- ablation:begin -->", "<!-- ablation:end -->\n<!-- ablation:begin -->"]
)
def test_a_page_with_half_a_section_is_left_alone(tmp_path: Path, markers: str) -> None:
    page = tmp_path / "page.md"
    page.write_text(markers, encoding="utf-8")
    with pytest.raises(DataError, match="expected <!-- ablation:begin --> and then"):
        replace_section(page, "ablation", "text")
    assert page.read_text(encoding="utf-8") == markers
