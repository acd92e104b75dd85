"""The rounds of a run: fit, evaluate, export and publish each, and make the best one current."""

from __future__ import annotations

import dataclasses
import json
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from pipelines.config import RunConfig
from pipelines.data.blocks import left_out, sample_users
from pipelines.data.prepare import Prepared
from pipelines.data.time_line import time_line
from pipelines.evaluation.content_baseline import content_scorer
from pipelines.evaluation.evaluate import Evaluation, Scorer, evaluate, popularity_scorer
from pipelines.evaluation.left_out import LeftOut
from pipelines.evaluation.length_spread import spread_lines
from pipelines.progress import Reporter
from pipelines.publishing.check_bundle import check_bundle
from pipelines.publishing.export import Exported, export_bundle
from pipelines.publishing.promote import Gate, HeldOut
from pipelines.publishing.sample_answers import sample_answers
from pipelines.reporting.report import write_report
from pipelines.results import Data, Results, Round, Rule, flatten
from pipelines.training.embed import Vectors, embed, match_scorer
from pipelines.training.fit import Fitted
from pipelines.training.measure_context import AskedAt, measure_context
from pipelines.training.not_yet import not_yet
from pipelines.training.parent import Parent
from pipelines.training.refit_on_all import RoundFits
from pipelines.training.report_sampling import report_sampling
from pipelines.versions.compare_versions import compare_opened, index_costs
from pipelines.versions.dates import write_dates
from pipelines.workers.workers import ALONE, Workers
from serving.atomic import move_file, write_text_atomic
from serving.retrieval.retriever import Retriever
from serving.version.bundle import DATES, HELD_OUT, RECENT, Bundle
from serving.version.manifest import Manifest, Provenance
from serving.version.seen import write_pairs
from serving.version.store import Store
from serving.version.tables_read import TABLES_READ, TablesRead
from towers.errors import RecallError

RESULTS = "results.json"
"""The file in a run's work folder that keeps the finished rounds."""

SHOWN_K, COMPARED_USERS = 20, 200
"""Of how many users the report compares how many items with those of the current version."""

PUBLISHING = "publishing.json"
"""The file in the work folder that replaces `RESULTS` once its last round is published."""


class Rounds:
    """Runs the rounds that are not finished yet."""

    def __init__(
        self,
        config: RunConfig,
        prepared: Prepared,
        *,
        store: Store,
        work: Path,
        reporter: Reporter,
        parent: Parent | None = None,
        promote: Rule = "not-worse",
        workers: Workers = ALONE,
    ) -> None:
        """Take the data, the store to publish to, and the folder that keeps a run's state."""
        self._gate = Gate(config, prepared, store=store, rule=promote)
        self.prepared, self.store = prepared, store
        self.work, self.reporter, self.parent = work, reporter, parent
        self._fits = RoundFits(
            config,
            prepared,
            store=store,
            work=work,
            reporter=reporter,
            parent=parent,
            workers=workers,
        )
        self.config = self._fits.config
        self._results = self._load()
        self._earlier = list(self._results["timings"])

    def run(self) -> Results:
        """Run every round, publish its version, and make the best one current."""
        self.reporter.tracking.settings(self._results["config"])
        for number in range(len(self._results["rounds"]), self.config.training.rounds + 1):
            self._run_round(number)
        self._results["timings"] = self._earlier + self.reporter.timings
        return self._results

    def _run_round(self, number: int) -> None:
        """Fit, evaluate, export and publish one round, and remember that it is finished."""
        with self.reporter.stage(f"round {number}: fit"):
            versions = [finished["version"] for finished in self._results["rounds"]]
            fitted, epochs = self._fits.fit(number, versions=versions)
        sampling = report_sampling(fitted.records) or report_sampling(epochs)
        for group, figures in sampling.items():
            shown = ", ".join(f"{name} {value:.3g}" for name, value in figures.items())
            self.reporter.say(f"  {group}: {shown}")
        with self.reporter.stage(f"round {number}: evaluate"):
            fitted = fitted.without_optimizer()
            dataset, tables, recent = self._fits.published(fitted)
            vectors = embed(fitted.model, dataset)
            evaluation = self._measure(match_scorer(vectors))
            by_moment = self._measure_context(fitted, vectors)
        with (
            self.reporter.stage(f"round {number}: export, check against exact, publish"),
            self.store.staging() as staged,
        ):
            version = self.store.version_of(staged)
            exported = export_bundle(
                fitted,
                dataset,
                vectors=vectors,
                tables=tables,
                config=self.config,
                folder=staged,
                version=version,
                reporter=self.reporter,
            )
            if recent is not None:
                recent.write(staged / RECENT)
            if (not_there := self._left_out.not_yet) is not None:
                write_dates(staged / DATES, not_there.there)
            for line in [*exported.lines, *spread_lines(exported.lengths)]:
                self.reporter.say(f"  {line}")
            self._results["rounds"].append(
                Round(
                    round=number,
                    version=version,
                    epochs=[dict(record) for record in epochs],
                    sampling=sampling,
                    evaluation=evaluation.to_dict(),
                    ann=exported.ann,
                    index=exported.lines,
                    lengths=exported.lengths,
                )
            )
            if by_moment:
                self._results["rounds"][-1]["by_moment"] = by_moment
            self._results["timings"] = self._earlier + self.reporter.timings
            if self._is_best(number):
                self._promote(version, match_scorer(vectors))
            provenance = self._provenance(fitted, exported)
            self._describe(Bundle(staged, Manifest.unfinished(provenance, version=version)))
            self._write_results(staged)
            self.store.publish(staged, provenance, check=Bundle.verify)
        self._finish_round(self._results)
        self._track(number)

    def _describe(self, bundle: Bundle) -> None:
        """Check what is to be published, and tell the report what it answers and what changed."""
        found = self._results["rounds"][-1]
        found["index_costs"] = index_costs(bundle)
        opened = check_bundle(bundle)
        found["samples"] = sample_answers(opened, seed=self.config.seed)
        current = self.store.current()
        if current is None:
            return
        try:
            before = Retriever(self.store.open(current, verify=False))
            changes = compare_opened((before, opened), k=SHOWN_K, n_users=COMPARED_USERS)
        except RecallError as error:
            self.reporter.say(f"  version {current}, which is current, cannot be compared: {error}")
        else:
            plain = _plain(changes.to_dict())
            found["changes"] = {name: x for name, x in plain.items() if name != "index"}

    def _track(self, number: int) -> None:
        """Tell the trackers, if there are some, what the round came to."""
        found, tracking = self._results["rounds"][number], self.reporter.tracking
        for name, segment in found["evaluation"]["segments"].items():
            tracking.figures(f"test/{name}", segment["figures"], step=number)
        tracking.figures("published", {"version": found["version"]}, step=number)
        bundle = self.store.open(found["version"], verify=False)
        tracking.files([bundle.report, bundle.metrics])

    def _promote(self, version: int, scorer: Scorer) -> None:
        """Decide whether a version is to become current."""
        held_out = HeldOut(dataset=self._fits.final_data, test=self._test, left_out=self._left_out)
        own = [finished["version"] for finished in self._results["rounds"]]
        with self.reporter.stage(f"compare version {version} with the current one"):
            promotion = self._gate.judge(scorer, held_out, own=own)
        self._results["promotion"] = promotion | {"version": version}
        if promotion["promoted"]:
            self._results["current_version"] = version

    def _finish_round(self, results: Results) -> None:
        """Make the version just published current if it is the best, and keep the results."""
        version = results["rounds"][-1]["version"]
        current, promotion = results["current_version"], results.get("promotion")
        switch = f"to switch: fm-recall rollback {self.store.root} --to {version}"
        if current == version:
            self.store.activate(version)
            why = f": {promotion['why']}" if promotion and promotion.get("compared_with") else ""
            self.reporter.say(f"  version {version} is published and current{why}")
        elif promotion and promotion["version"] == version:
            self.reporter.say(
                f"  version {version} is published, but not current: {promotion['why']}; {switch}"
            )
        else:
            better = results["promotion"]["version"]
            self.reporter.say(
                f"  version {version} is published, but not current: version {better} validates "
                f"better; {switch}"
            )
        move_file(self.work / PUBLISHING, self.work / RESULTS)

    def _measure(self, scorer: Scorer) -> Evaluation:
        """Evaluate on the test interactions."""
        n_users = int(np.count_nonzero(np.diff(self._test.indptr)))
        with self.reporter.bar("evaluate", n_users, unit="users") as advance:
            return evaluate(
                scorer,
                train=self._known,
                left_out=self._left_out,
                item_counts=self._fits.final_data.interactions.item_counts,
                test=self._test,
                config=self.config.evaluation,
                advance=advance,
            )

    def _measure_context(self, fitted: Fitted, vectors: Vectors) -> dict[str, float]:
        """Measure what the context is worth on the test interactions, where there is one."""
        data = self._fits.final_data
        if data.context_bags is None or not len(self._asked):
            return {}
        found = measure_context(
            fitted.model,
            data,
            AskedAt.of(
                self.prepared.interactions("test"),
                users=self._asked,
                limit=self.config.evaluation.test_users,
                seed=self.config.seed,
            ),
            vectors=vectors,
            left_out=self._left_out,
            config=self.config.evaluation,
        )
        figures = ", ".join(f"{value:.4f} {name}" for name, value in found.items())
        self.reporter.say(f"  {self.config.evaluation.metric} by user and moment: {figures}")
        return found

    @cached_property
    def _test(self) -> sparse.csr_array:
        """The test positives of the users that are evaluated, [n_users, n_items]."""
        return sample_users(
            self.prepared.interactions("test"),
            limit=self.config.evaluation.test_users,
            seed=self.config.seed,
        )

    @cached_property
    def _known(self) -> sparse.csr_array:
        """The positives of these users in training, [n_users, n_items]."""
        return self._fits.final_data.interactions.of(self._asked)

    @cached_property
    def _left_out(self) -> LeftOut:
        """What is not recommended to these users."""
        what = self.config.evaluation.leave_out
        seen = left_out(self._fits.final_data.interactions, self._asked, what=what)
        return LeftOut(seen, not_yet(self.prepared, "test", config=self.config))

    @property
    def _asked(self) -> NDArray[np.int64]:
        """The rows of the users that are evaluated."""
        return np.flatnonzero(np.diff(self._test.indptr))

    def _is_best(self, number: int) -> bool:
        """Whether no earlier round of this run has a better validation figure."""
        metric = self.config.evaluation.metric
        best = [
            max((record.get(metric, 0.0) for record in finished["epochs"]), default=0.0)
            for finished in self._results["rounds"]
        ]
        return best[number] >= max(best)

    def _provenance(self, fitted: Fitted, exported: Exported) -> Provenance:
        """What the manifest records about the last round."""
        rounds, mined = self._results["rounds"], fitted.mined
        versions = [self.parent.version] if self.parent else []
        versions += [finished["version"] for finished in rounds[:-1]]
        return Provenance(
            name=self.config.name,
            schema_fingerprint=self.config.schema.fingerprint(),
            config=_plain(dataclasses.asdict(self.config)),
            parent_version=versions[-1] if versions else None,
            mined=None if mined is None else mined.provenance(),
            index=exported.index.to_dict(),
            metrics=rounds[-1]["evaluation"],
            tables_read=None if self._tables_read is None else self._tables_read.time,
        )

    @cached_property
    def _tables_read(self) -> TablesRead | None:
        """When the tables were read, and what the servers' journals held then."""
        return TablesRead.read(self.work / TABLES_READ)

    def _write_results(self, folder: Path) -> None:
        """Write the figures and the report of all rounds so far."""
        text = json.dumps(self._results, indent=2, allow_nan=False)
        (folder / "metrics.json").write_text(text, encoding="utf-8")
        write_report(folder / "report.html", self._results)
        if self._tables_read is not None:
            self._tables_read.write(folder / TABLES_READ)
        if self._test.nnz:
            users, items = (part.astype(np.int64) for part in self._test.tocoo().coords)
            write_pairs(folder / HELD_OUT, [(users, items)])
        write_text_atomic(self.work / PUBLISHING, text)

    def _load(self) -> Results:
        """Take the finished rounds of an interrupted run, or start with none."""
        publishing, finished = self.work / PUBLISHING, self.work / RESULTS
        settings = flatten(_plain(dataclasses.asdict(self.config)))
        if publishing.exists() and self._is_published(publishing):
            self._finish_round(json.loads(publishing.read_text(encoding="utf-8")))
        if finished.exists():
            found: Results = json.loads(finished.read_text(encoding="utf-8"))
            found["config"], found["required_recall"] = settings, self.config.index.recall
            return found
        not_there = self._left_out.not_yet
        missing = [] if not_there is None else [not_there.describe(self._asked)]
        for said in missing:
            self.reporter.say(f"  {said}")
        with self.reporter.stage("measure popularity"):
            popularity = popularity_scorer(self._fits.final_data.interactions.item_counts)
            baseline = self._measure(popularity).to_dict()
        results = Results(
            name=self.config.name,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            config=settings,
            data=Data(lines=[*self.prepared.lines, *missing], counts=self.prepared.counts),
            metric=self.config.evaluation.metric,
            required_recall=self.config.index.recall,
            rounds=[],
            current_version=None,
            baseline=baseline,
            timings=[],
        )
        if (line := time_line(self.prepared)) is not None:
            results["data"]["time_line"] = line
        if (recent := self._fits.recent) is not None:
            with self.reporter.stage("measure popularity of late"):
                scorer = popularity_scorer(recent.counts)
                results["recent_baseline"] = self._measure(scorer).to_dict()
        content, _ = self._fits.final_data.content_bags("item")
        if content.nnz:
            with self.reporter.stage("measure TF-IDF of the item features"):
                scorer = content_scorer(content, known=self._known)
                results["content_baseline"] = self._measure(scorer).to_dict()
        return results

    def _is_published(self, publishing: Path) -> bool:
        """Whether the last round of `publishing` was published before the run was interrupted."""
        text = publishing.read_text(encoding="utf-8")
        version = json.loads(text)["rounds"][-1]["version"]
        if version not in self.store.versions():
            return False
        metrics = self.store.open(version, verify=False).metrics
        return metrics.read_text(encoding="utf-8") == text


def _plain(value: Any) -> Any:
    """The same values as JSON reads them back, with lists for tuples."""
    return json.loads(json.dumps(value))
