"""The fits of the ablation: each variant, after the variant that mines for it."""

from __future__ import annotations

import dataclasses
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from scipy import sparse

from benchmarks.ablation_cells import METRICS, SEGMENTS, Cell, settings_of
from benchmarks.ablation_variants import VARIANTS, Variant
from benchmarks.final import final_parts, prepared_tables
from pipelines.config import RunConfig
from pipelines.data.blocks import every_positive
from pipelines.data.dataset import Dataset
from pipelines.data.prepare import Prepared
from pipelines.evaluation.evaluate import evaluate
from pipelines.progress import Reporter
from pipelines.training.embed import embed, match_scorer
from pipelines.training.fit import Fit, Fitted, fit
from pipelines.training.mine import mine_fitted
from pipelines.training.report_sampling import report_sampling
from towers.negatives import MinedNegatives


@dataclass(frozen=True, kw_only=True, eq=False)
class Bench:
    """A data set as every fit on it sees it."""

    name: str
    config: RunConfig
    dataset: Dataset
    """All interactions but the test's."""
    test: sparse.csr_array
    """[n_users, n_items]"""

    @classmethod
    def read(cls, name: str, config: RunConfig) -> Bench:
        """Read the tables that `config` names."""
        with prepared_tables(config) as prepared:
            return cls.build(name, config, prepared=prepared)

    @classmethod
    def build(cls, name: str, config: RunConfig, *, prepared: Prepared) -> Bench:
        """Encode tables that are split already."""
        dataset, test = final_parts(config, prepared)
        return cls(name=name, config=config, dataset=dataset, test=test)

    def configure(self, variant: Variant, *, seed: int) -> RunConfig:
        """The configuration of one cell."""
        return dataclasses.replace(variant.configure(self.config, self.dataset), seed=seed)


@dataclass(frozen=True, kw_only=True, eq=False)
class Round:
    """A fitted variant, and what all the rounds up to it took."""

    fitted: Fitted
    seconds: float
    seconds_before: float


@dataclass(frozen=True, kw_only=True, eq=False)
class SeedFits:
    """Fits variants on one data set with one seed; what others mine with is fitted once."""

    bench: Bench
    seed: int
    _miners: dict[str, Round] = field(default_factory=dict)
    _mined: dict[str, tuple[MinedNegatives, float]] = field(default_factory=dict)

    def measure(self, variant: Variant) -> Cell:
        """Fit a variant, and look at the test once."""
        last = self.fit(variant)
        config = self.bench.configure(variant, seed=self.seed)
        result = evaluate(
            match_scorer(embed(last.fitted.model, self.bench.dataset)),
            train=every_positive(self.bench.dataset.interactions),
            test=self.bench.test,
            config=config.evaluation,
        )
        found = {name: result.segments[name] for name in SEGMENTS if result.segments[name].n_users}
        sampling = report_sampling(last.fitted.records)
        return Cell(
            data=self.bench.name,
            variant=variant.name,
            seed=self.seed,
            settings=settings_of(config),
            users={name: segment.n_users for name, segment in found.items()},
            figures={
                name: {metric: segment.figures[metric] for metric in METRICS}
                for name, segment in found.items()
            },
            seconds=last.seconds,
            seconds_before=last.seconds_before,
            mined_share=sampling["share of hardest negatives"]["mined"],
        )

    def fit(self, variant: Variant) -> Round:
        """Fit a variant, after its miner; a miner is kept."""
        if variant.name in self._miners:
            return self._miners[variant.name]
        mined, before = self.mine(variant)
        config = self.bench.configure(variant, seed=self.seed)
        start = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            job = Fit(
                dataset=self.bench.dataset,
                config=config,
                epochs=config.training.epochs,
                mined=mined,
                validation=None,
                directory=Path(folder, "state"),
                logs=Path(folder, "logs"),
            )
            fitted = fit(job, Reporter())
        seconds = time.perf_counter() - start
        done = Round(fitted=fitted, seconds=seconds, seconds_before=before)
        if _deepest(variant.name):
            self._miners[variant.name] = done
        return done

    def mine(self, variant: Variant) -> tuple[MinedNegatives | None, float]:
        """Take a variant's ranks of what its miner retrieves; and the seconds up to there."""
        mining = variant.mining
        if mining is None:
            return None, 0.0
        if mining.miner not in self._mined:
            self._mined[mining.miner] = self._retrieve(mining.miner)
        mined, seconds = self._mined[mining.miner]
        first, last = mining.ranks
        items = mined.items[:, first - 1 : last]
        return dataclasses.replace(mined, items=items, ranks=mining.ranks), seconds

    def _retrieve(self, miner: str) -> tuple[MinedNegatives, float]:
        """Retrieve with a miner once, as deep as any variant asks of it."""
        previous = self.fit(VARIANTS[miner])
        start = time.perf_counter()
        mined = mine_fitted(
            previous.fitted.model,
            self.bench.dataset,
            ranks=(1, _deepest(miner)),
            version=0,
            seed=self.seed,
            advance=lambda _: None,
        )
        seconds = time.perf_counter() - start
        return mined, previous.seconds_before + previous.seconds + seconds


def _deepest(miner: str) -> int:
    """The last rank that is asked of a variant; 0 where it mines for none."""
    minings = [variant.mining for variant in VARIANTS.values() if variant.mining]
    return max((mining.ranks[1] for mining in minings if mining.miner == miner), default=0)
