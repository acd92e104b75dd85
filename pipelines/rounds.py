"""The rounds of a run: fit, evaluate, export, publish; later ones mine with the one before."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.config import RunConfig
from pipelines.dataset import Dataset, build_dataset, interaction_matrix
from pipelines.embed import match_scorer
from pipelines.evaluate import Evaluation, evaluate, popularity_scorer
from pipelines.export import Exported, export_bundle
from pipelines.fit import Fit, Fitted, fit, sampling_report
from pipelines.mine import mine_fitted, mine_published
from pipelines.prepare import Prepared
from pipelines.progress import Reporter
from pipelines.report import write_report
from pipelines.results import Data, Results, Round
from serving.atomic import write_text_atomic
from serving.manifest import Provenance
from serving.retriever import Retriever
from serving.store import Store
from towers.negatives import MinedNegatives

RESULTS = "results.json"
"""The file in a run's work folder that keeps the finished rounds."""

PUBLISHING = "publishing.json"
"""The file there that holds what becomes `RESULTS` once its last round is published and current."""


class Rounds:
    """Runs the rounds that are not finished yet."""

    def __init__(
        self, config: RunConfig, prepared: Prepared, *, store: Store, work: Path, reporter: Reporter
    ) -> None:
        """Take the data, the store to publish to, and the folder that keeps a run's state."""
        self.config, self.prepared, self.store = config, prepared, store
        self.work, self.reporter = work, reporter
        self._searched: dict[int, Fitted] = {}
        self._results = self._load()
        self._earlier = list(self._results["timings"])

    def run(self) -> Results:
        """Run every round, publish its version, and make the best one current."""
        for number in range(len(self._results["rounds"]), self.config.training.rounds + 1):
            self._run_round(number)
        self._results["timings"] = self._earlier + self.reporter.timings
        return self._results

    @cached_property
    def _search_data(self) -> Dataset:
        """What a fit sees while validation interactions are held out."""
        return self._dataset(self.prepared.train)

    @cached_property
    def _final_data(self) -> Dataset:
        """What a published model has seen: all but the test interactions, if it is refitted."""
        if not self.config.training.refit_on_all:
            return self._search_data
        return self._dataset(self.prepared.everything_but_test)

    def _dataset(self, interactions: Any) -> Dataset:
        prepared = self.prepared
        return build_dataset(
            self.config.schema,
            users=prepared.users,
            items=prepared.items,
            interactions=interactions,
        )

    def _run_round(self, number: int) -> None:
        """Fit, evaluate, export and publish one round, and remember that it is finished."""
        with self.reporter.stage(f"round {number}: fit"):
            fitted, searched = self._fit_round(number)
        sampling = sampling_report(fitted.records)
        for group, figures in sampling.items():
            shown = ", ".join(f"{name} {value:.3g}" for name, value in figures.items())
            self.reporter.say(f"  {group}: {shown}")
        with self.reporter.stage(f"round {number}: evaluate"):
            evaluation = self._evaluate(fitted)
        with (
            self.reporter.stage(f"round {number}: export, check against exact, publish"),
            self.store.staging() as staged,
        ):
            version = self.store.version_of(staged)
            exported = export_bundle(
                fitted,
                self._final_data,
                prepared=self.prepared,
                config=self.config,
                folder=staged,
                version=version,
                reporter=self.reporter,
            )
            self._results["rounds"].append(
                Round(
                    round=number,
                    version=version,
                    epochs=[dict(record) for record in searched.records],
                    sampling=sampling,
                    evaluation=evaluation.to_dict(),
                    ann=exported.ann,
                )
            )
            self._results["timings"] = self._earlier + self.reporter.timings
            if self._is_best(number):
                self._results["current_version"] = version
            self._write_results(staged)
            self.store.publish(staged, self._provenance(number, exported))
        self._finish_round(self._results)

    def _finish_round(self, results: Results) -> None:
        """Make the version just published current if it is the best, and keep the results."""
        version = results["rounds"][-1]["version"]
        current = results["current_version"]
        if current == version:
            self.store.activate(version)
            self.reporter.say(f"  version {version} is published and current")
        else:
            self.reporter.say(
                f"  version {version} is published, but version {current} validates better and "
                f"stays current; to switch: fm-recall rollback {self.store.root} --to {version}"
            )
        (self.work / PUBLISHING).replace(self.work / RESULTS)

    def _fit_round(self, number: int) -> tuple[Fitted, Fitted]:
        """Fit what is published, and what was validated; the same where nothing is held out."""
        if not len(self.prepared.validation):
            fitted = self._fit_final(number, epochs=self.config.training.epochs)
            return fitted, fitted
        searched = self._search(number)
        if not self.config.training.refit_on_all:
            return searched, searched
        self.reporter.say(f"  again on all but the test, for {searched.best_epoch} epochs")
        return self._fit_final(number, epochs=searched.best_epoch), searched

    def _search(self, number: int) -> Fitted:
        """Fit with validation held out, which decides the number of epochs."""
        if number not in self._searched:
            data = self._search_data
            mined = self._mine_search(number, data)
            self._searched[number] = fit(
                Fit(
                    dataset=data,
                    config=self.config,
                    epochs=self.config.training.epochs,
                    mined=mined,
                    validation=self._sampled_validation(data),
                    directory=self.work / f"round-{number}" / "search",
                    logs=self._logs(number, "search"),
                ),
                self.reporter,
            )
        return self._searched[number]

    def _fit_final(self, number: int, *, epochs: int) -> Fitted:
        """Fit on everything but the test interactions."""
        return fit(
            Fit(
                dataset=self._final_data,
                config=self.config,
                epochs=epochs,
                mined=self._mine_published(number),
                validation=None,
                directory=self.work / f"round-{number}" / "final",
                logs=self._logs(number, "final"),
            ),
            self.reporter,
        )

    def _mine_search(self, number: int, data: Dataset) -> MinedNegatives | None:
        """Mine with the last round's model that has not seen validation either."""
        if not self._mines(number):
            return None
        with self.reporter.bar("mine", len(data.user_ids)) as advance:
            return mine_fitted(
                self._search(number - 1).model,
                data,
                ranks=self.config.training.negatives.mined_ranks,
                version=self._version(number - 1),
                advance=advance,
            )

    def _mine_published(self, number: int) -> MinedNegatives | None:
        """Mine with the version that the last round published."""
        if not self._mines(number):
            return None
        previous = Retriever.open(self.store.root, version=self._version(number - 1))
        with self.reporter.bar("mine", len(previous.users.ids)) as advance:
            return mine_published(
                previous, ranks=self.config.training.negatives.mined_ranks, advance=advance
            )

    def _version(self, number: int) -> int:
        """The version that a finished round published."""
        return self._results["rounds"][number]["version"]

    def _mines(self, number: int) -> bool:
        return number > 0 and self.config.training.negatives.mined > 0

    def _sampled_validation(self, data: Dataset) -> Any:
        """The validation positives of a sample of users, [n_users, n_items]."""
        matrix = interaction_matrix(
            self.prepared.validation, user_ids=data.user_ids, item_ids=data.item_ids
        )
        users = np.flatnonzero(np.diff(matrix.indptr))
        rng = np.random.default_rng(self.config.seed)
        limit = self.config.evaluation.validation_users
        if len(users) <= limit:
            return matrix
        keep = np.zeros(matrix.shape[0], dtype=np.float32)
        keep[rng.choice(users, limit, replace=False)] = 1.0
        matrix.data *= np.repeat(keep, np.diff(matrix.indptr))
        matrix.eliminate_zeros()
        return matrix

    def _evaluate(self, fitted: Fitted) -> Evaluation:
        """Measure on the test interactions."""
        scorer = match_scorer(fitted.model, self._final_data)
        return self._measure(scorer)

    def _measure(self, scorer: Any) -> Evaluation:
        data = self._final_data
        test = interaction_matrix(
            self.prepared.test, user_ids=data.user_ids, item_ids=data.item_ids
        )
        with self.reporter.bar("evaluate", int(np.count_nonzero(np.diff(test.indptr)))) as advance:
            return evaluate(
                scorer,
                train=data.interactions,
                test=test,
                config=self.config.evaluation,
                advance=advance,
            )

    def _is_best(self, number: int) -> bool:
        """Whether no earlier round of this run has a better validation figure."""
        metric = self.config.evaluation.metric
        best = [
            max((record.get(metric, 0.0) for record in finished["epochs"]), default=0.0)
            for finished in self._results["rounds"]
        ]
        return best[number] >= max(best)

    def _provenance(self, number: int, exported: Exported) -> Provenance:
        """What the manifest says of the round."""
        negatives = self.config.training.negatives
        rounds = self._results["rounds"]
        parent = rounds[number - 1]["version"] if number else None
        mined = {
            "version": parent,
            "ranks": list(negatives.mined_ranks),
            "queries": len(self._final_data.user_ids),
        }
        return Provenance(
            name=self.config.name,
            schema_fingerprint=self.config.schema.fingerprint(),
            config=_plain(dataclasses.asdict(self.config)),
            parent_version=parent,
            mined=mined if self._mines(number) else None,
            index=exported.index.to_dict(),
            metrics=rounds[number]["evaluation"],
        )

    def _write_results(self, folder: Path) -> None:
        """Write the figures and the report of all rounds so far."""
        text = json.dumps(self._results, indent=2, allow_nan=False)
        (folder / "metrics.json").write_text(text, encoding="utf-8")
        write_report(folder / "report.html", self._results)
        write_text_atomic(self.work / PUBLISHING, text)

    def _load(self) -> Results:
        """Take the finished rounds of an interrupted run, or start with none."""
        publishing, finished = self.work / PUBLISHING, self.work / RESULTS
        if publishing.exists() and self._is_published(publishing):
            self._finish_round(json.loads(publishing.read_text(encoding="utf-8")))
        if finished.exists():
            found: Results = json.loads(finished.read_text(encoding="utf-8"))
            return found
        popularity = popularity_scorer(self._final_data.item_popularity)
        return Results(
            name=self.config.name,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            config=_flat(_plain(dataclasses.asdict(self.config))),
            data=Data(lines=list(self.prepared.lines), counts=self.prepared.counts),
            metric=self.config.evaluation.metric,
            required_recall=self.config.index.recall,
            rounds=[],
            current_version=None,
            baseline=self._measure(popularity).to_dict(),
            timings=[],
        )

    def _is_published(self, publishing: Path) -> bool:
        """Whether the last round of `publishing` was published before the run was interrupted."""
        text = publishing.read_text(encoding="utf-8")
        version = json.loads(text)["rounds"][-1]["version"]
        if version not in self.store.versions():
            return False
        metrics = self.store.open(version, verify=False).metrics
        return metrics.read_text(encoding="utf-8") == text

    def _logs(self, number: int, phase: str) -> Path:
        return self.store.root / "logs" / self.work.name.strip(".") / f"round-{number}-{phase}"


def _plain(value: Any) -> Any:
    """The same as JSON gives it back: lists for tuples."""
    return json.loads(json.dumps(value))


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Settings by their dotted names."""
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat
