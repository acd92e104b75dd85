"""Rank: train the second stage of a version on what recall did not see, and publish it."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipelines.config import RunConfig
from pipelines.data.prepare import Prepared, prepare
from pipelines.job_folder import JobFolder, fingerprint
from pipelines.progress import Reporter
from pipelines.publishing.check_bundle import check_bundle
from pipelines.rank_config import RankConfig
from pipelines.ranking.draw_examples import Drawn, draw, held_out_events
from pipelines.ranking.encode import encode_columns, fields_of
from pipelines.ranking.examples import Examples, Rows, Tables
from pipelines.ranking.fit_ranker import FittedRanker, fit_ranker
from pipelines.ranking.measure import list_ndcg, measure_scores
from pipelines.ranking.rank_graph import RankGraph
from pipelines.ranking.rank_results import RankResults
from pipelines.ranking.sample_ranker import sample_ranker
from pipelines.results import Rule
from pipelines.run import identify
from serving.atomic import write_text_atomic
from serving.retrieval.explanation.active_features import raw_features
from serving.retrieval.retriever import Retriever
from serving.version.bundle import RANKER, Bundle
from serving.version.manifest import MANIFEST, Provenance
from serving.version.ranker import RankerRecord, rank_inputs
from serving.version.saved_models.first_requests import write_warmup
from serving.version.saved_models.names import EXPLAIN, RANK
from serving.version.store import Store
from towers.features.encoder import Encoder
from towers.features.kinds import Features
from towers.features.schema import SIDES, Side
from towers.features.vocabulary import Vocabulary
from towers.ranking.bags import FieldBags
from towers.ranking.pairs import Fields

PREPARED = "prepared"
ENCODED_TOGETHER = 4096


def rank(
    config: RunConfig,
    models: Path,
    *,
    frames: Mapping[str, pd.DataFrame] | None = None,
    version: int | None = None,
    promote: Rule = "not-worse",
    reporter: Reporter | None = None,
) -> RankResults:
    """Train a ranker for a version on the test part of the tables, and publish it as a new version.

    The features are those of the version, and the score by which recall found the item. The new
    version becomes current if the old one is and its order of recall's candidates is better than
    recall's own, by the mean NDCG of the validation users; else it is published alone.

    Args:
        config: the tables, and the settings of the ranker.
        models: the models directory.
        frames: the tables as DataFrames, in place of files.
        version: which version, if not the current.
        promote: `always` makes the new version current whatever it is worth.
        reporter: shows progress; silent by default.

    Raises:
        BundleError: there is no such version.
        ConfigError: the settings do not fit the version, or another process is at work on them.
        DataError: rows break the rules of their table, or too little is held out.
        TrainingError: training diverged.
    """
    reporter, store = reporter or Reporter(), Store(models)
    retriever = Retriever(store.open(version))
    config = _with_features_of(config, retriever)
    job = identify(config, frames=frames, without=("index", "export", "training", "tracking"))
    job |= {"version": retriever.version}
    folder = JobFolder(path=models / f".rank-{fingerprint(job)[:16]}", job=job)
    with folder.claim():
        kept = folder.path / PREPARED
        prepared = (
            Prepared.load(kept)
            if kept.exists()
            else prepare(config, kept, frames=frames, reporter=reporter)
        )
        work = _Work(config, prepared, retriever, store=store, reporter=reporter)
        results = work.run(folder.path / "fit", promote=promote)
        folder.remove()
    return results


def _with_features_of(config: RunConfig, retriever: Retriever) -> RunConfig:
    """The settings with the features of the version."""
    schema = retriever.parts.schema
    context = schema.context
    return dataclasses.replace(
        config,
        user=Features(features=schema.user.features),
        item=Features(features=schema.item.features),
        context=context,
    )


class _Work:
    """The steps of the job."""

    def __init__(
        self,
        config: RunConfig,
        prepared: Prepared,
        retriever: Retriever,
        *,
        store: Store,
        reporter: Reporter,
    ) -> None:
        self.config, self.prepared, self.retriever = config, prepared, retriever
        self.store, self.reporter = store, reporter
        parts = retriever.parts
        self.encoders: dict[Side, Encoder] = {
            side: Encoder(parts.schema, parts.vocabulary, side=side) for side in SIDES
        }

    @property
    def settings(self) -> RankConfig:
        """Those of the ranker."""
        return self.config.rank

    def run(self, folder: Path, *, promote: Rule) -> RankResults:
        """Draw, fit, measure and publish."""
        with self.reporter.stage("find candidates"):
            events = held_out_events(
                self.prepared, self.retriever, not_chosen=self.settings.not_chosen
            )
            drawn = draw(
                events,
                self.retriever,
                self.prepared.contexts,
                config=self.settings,
                seed=self.config.seed,
            )
        tables, drawn = self._tables(drawn)
        train = drawn["train"].fitting
        self.reporter.say(
            f"  {len(train):,} examples, {train.labels.mean():.1%} chosen; candidates are those of "
            f"{len(drawn['validation'].lists.n_chosen):,} validation and "
            f"{len(drawn['test'].lists.n_chosen):,} test queries"
        )
        with self.reporter.stage("fit the ranker"):
            fit = sample_ranker if self.settings.solver == "mcmc" else fit_ranker
            fitted = fit(
                tables,
                train,
                drawn["validation"].fitting,
                config=self.settings,
                seed=self.config.seed,
                folder=folder,
                reporter=self.reporter,
            )
        figures = {
            part: measure_part(fitted, drawn[part], k=self.settings.k)
            for part in ("validation", "test")
        }
        return self._publish(fitted, tables.fields, figures, promote=promote)

    def _tables(self, drawn: Mapping[str, Drawn]) -> tuple[Tables, dict[str, Drawn]]:
        """Encode the users, moments and items that occur, and number them from 0."""
        rows = {
            side: np.unique(
                np.concatenate(
                    [
                        getattr(one, f"{side}s")
                        for part in drawn.values()
                        for one in (part.fitting, part.lists.examples)
                    ]
                )
            )
            for side in SIDES
        }
        parts, crosses = self.retriever.parts, self.settings.crosses
        fields = fields_of(parts.schema, parts.vocabulary, crosses=crosses, with_recall=True)
        recall = drawn["train"].fitting.recall
        fields = dataclasses.replace(
            fields, recall_mean=float(recall.mean()), recall_std=float(recall.std()) or 1.0
        )
        tables = Tables(
            fields=fields,
            n_rows=parts.vocabulary.n_rows + sum(cross.buckets for cross in crosses) + 1,
            users=self._encode("user", rows["user"]),
            items=self._encode("item", rows["item"]),
            moments=self._moments(parts.vocabulary),
        )
        numbered = {
            name: Drawn(
                fitting=_renumbered(part.fitting, rows),
                lists=dataclasses.replace(
                    part.lists, examples=_renumbered(part.lists.examples, rows)
                ),
            )
            for name, part in drawn.items()
        }
        return tables, numbered

    def _encode(self, side: Side, rows: Rows) -> FieldBags:
        """Encode users or items of the version by the raw features that it keeps of them."""
        parts, found = self.retriever.parts, []
        for start in range(0, len(rows), ENCODED_TOGETHER):
            some = rows[start : start + ENCODED_TOGETHER]
            raw = raw_features(parts, side, some)
            found.append(
                encode_columns(self.encoders[side], parts.schema, parts.vocabulary, raw, side=side)
            )
        return FieldBags.joined(found)

    def _moments(self, vocabulary: Vocabulary) -> FieldBags:
        """Encode the moments."""
        contexts, schema = self.prepared.contexts, self.retriever.parts.schema
        columns = {}
        if contexts is not None:
            columns = {one.name: contexts[one.column] for one in schema.context_features}
        return encode_columns(self.encoders["user"], schema, vocabulary, columns, side="user")

    def _publish(
        self,
        fitted: FittedRanker,
        fields: Fields,
        figures: Mapping[str, Any],
        *,
        promote: Rule,
    ) -> RankResults:
        """Write the version once more, with the ranker, and use it if it is worth it."""
        bundle, gate = self.retriever.bundle, figures["validation"]
        metric = f"ndcg@{self.settings.k}"
        accepted = gate["ranker"][metric] > gate["recall"][metric]
        why = (
            f"of {gate['queries']:,} validation queries, the ranker has {metric} "
            f"{gate['ranker'][metric]:.4f} and recall's own order {gate['recall'][metric]:.4f}"
        )
        record = RankerRecord(
            kind=self.settings.model.kind,
            fields=list(fields.names),
            candidates=self.settings.candidates,
            accepted=accepted,
            figures=figures,
        )
        with self.reporter.stage("export and publish"), self.store.staging() as staged:
            number = self.store.version_of(staged)
            copy_bundle(bundle, staged, version=number)
            path = staged / "models" / RANK / str(number)
            RankGraph(fitted.ranker, fields, self.encoders).save(path)
            self._write_warmup(path)
            text = json.dumps(dataclasses.asdict(record), indent=2, allow_nan=False)
            write_text_atomic(staged / RANKER, text)
            self.store.publish(staged, self._provenance(bundle, figures), check=check_bundle)
        is_current = self.store.current() == bundle.version and (accepted or promote == "always")
        if is_current:
            self.store.activate(number)
        return RankResults(version=number, is_current=is_current, why=why, figures=figures)

    def _write_warmup(self, path: Path) -> None:
        """Write requests with the features of the first users and items."""
        parts, n = self.retriever.parts, 64
        sides = {}
        for side in SIDES:
            rows = np.arange(min(n, parts.catalogue(side).size), dtype=np.int64)
            raw = raw_features(parts, side, rows)
            sides[side] = parts.tower(side).pack(raw, size=len(rows))
        size = min(len(next(iter(packed.values()))) for packed in sides.values())
        places = np.arange(size, dtype=np.int64)
        queries = rank_inputs(
            {side: {k: v[:size] for k, v in packed.items()} for side, packed in sides.items()},
            query=places,
            item=places,
            recall=np.zeros(size, np.float32),
        )
        write_warmup(path, model=RANK, signatures={"serving_default": queries, EXPLAIN: queries})

    def _provenance(self, bundle: Bundle, figures: Mapping[str, Any]) -> Provenance:
        """What the manifest records: the version that this one is, and its ranker."""
        manifest = bundle.manifest
        given = {
            field.name: getattr(manifest, field.name) for field in dataclasses.fields(Provenance)
        }
        settings = json.loads(json.dumps(dataclasses.asdict(self.settings)))
        return Provenance(
            **given
            | {
                "parent_version": bundle.version,
                "config": {**manifest.config, "rank": settings},
                "metrics": {**manifest.metrics, "rank": dict(figures)},
            }
        )


def measure_part(fitted: FittedRanker, drawn: Drawn, *, k: int) -> dict[str, Any]:
    """The figures of a ranker and of recall's order, of some users."""
    fitting, lists = drawn.fitting, drawn.lists
    figures = {}
    for name, scores in (
        ("ranker", fitted.scores(lists.examples)),
        ("recall", lists.examples.recall),
    ):
        each = list_ndcg(lists.examples.labels, scores, lists.queries, lists.n_chosen, k=k)
        figures[name] = {f"ndcg@{k}": float(each.mean())}
    figures["ranker"] |= measure_scores(fitting.labels, fitted.scores(fitting), fitting.users)
    return {"queries": len(lists.n_chosen), **figures}


def copy_bundle(bundle: Bundle, folder: Path, *, version: int) -> None:
    """Copy the files of a version, but its manifest and its ranker, as those of another version.

    Files are links to the same contents where the file system has such.
    """
    for path in sorted(bundle.path.rglob("*")):
        name = path.relative_to(bundle.path)
        if path.is_dir() or name.as_posix() in {MANIFEST, RANKER}:
            continue
        parts = list(name.parts)
        if parts[0] == "models":
            if parts[1] == RANK:
                continue
            parts[2] = str(version)
        target = folder.joinpath(*parts)
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(path, target)
        except OSError:
            shutil.copyfile(path, target)


def _renumbered(examples: Examples, rows: Mapping[Side, Rows]) -> Examples:
    """The same examples by the places of their users and items among `rows`."""
    return dataclasses.replace(
        examples,
        users=np.searchsorted(rows["user"], examples.users),
        items=np.searchsorted(rows["item"], examples.items),
    )
