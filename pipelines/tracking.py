"""Trackers: tell MLflow or Weights & Biases what a run does, through one small protocol."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Literal, Protocol
from uuid import uuid4

from pydantic.dataclasses import dataclass

from serving.atomic import write_text_atomic
from towers.errors import ConfigError, RecallError
from towers.extras import import_extra
from towers.typed import STRICT

STATE = "tracking.json"
"""The file in a run's work folder by which an interrupted run goes on under its own name."""

BATCH = 100
"""The parameters that MLflow takes at once."""

LONGEST = 500
"""The characters of a setting that MLflow keeps."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class TrackingConfig:
    """Who is told of a run's settings, figures and report, beside TensorBoard."""

    to: tuple[Literal["mlflow", "wandb"], ...] = ()
    """`mlflow` and `wandb` (Weights & Biases), each an extra to install."""
    project: str | None = None
    """MLflow's experiment, or the project of Weights & Biases. Default: the run's name."""
    mlflow_uri: str | None = None
    """MLflow's tracking URI, such as http://HOST:5000 or sqlite:///runs.db. Default: as MLflow's
    environment says."""
    wandb_mode: Literal["online", "offline"] | None = None
    """`offline`: keep the run in the folder wandb, to be sent later. Default: as the environment of
    Weights & Biases says."""


class Tracker(Protocol):
    """What is told of a run. It may raise anything: the run says so, and goes on without it."""

    @property
    def key(self) -> str:
        """What an interrupted run is found by again."""
        ...

    def settings(self, settings: Mapping[str, Any]) -> None:
        """Take all settings by dotted name, once, at the beginning."""
        ...

    def figures(self, group: str, figures: Mapping[str, float], *, step: int) -> None:
        """Take figures: `group` is such as `round-0-search` (of an epoch, `step`) or `test`."""
        ...

    def file(self, path: Path) -> None:
        """Keep a small file, such as the report."""
        ...

    def end(self, *, failed: bool) -> None:
        """Close the run."""
        ...


class MlflowTracker:
    """Writes to MLflow, through its client, so that nothing global of MLflow is changed."""

    def __init__(self, config: TrackingConfig, *, name: str, key: str | None = None) -> None:
        """Begin a run, or go on with the one whose id is `key`.

        Raises:
            ConfigError: MLflow is not installed.
        """
        self._mlflow = import_extra("mlflow", extra="mlflow", task="tracking.to")
        self._client = self._mlflow.MlflowClient(tracking_uri=config.mlflow_uri)
        if key is not None:
            self.key = key
            self._client.update_run(key, status="RUNNING")
            return
        project = config.project or name
        found = self._client.get_experiment_by_name(project)
        experiment = found.experiment_id if found else self._client.create_experiment(project)
        self.key = self._client.create_run(experiment, run_name=name).info.run_id

    def settings(self, settings: Mapping[str, Any]) -> None:
        """Take the settings as parameters."""
        param = self._mlflow.entities.Param
        all_ = [param(_plain(name), str(value)[:LONGEST]) for name, value in settings.items()]
        for start in range(0, len(all_), BATCH):
            self._client.log_batch(self.key, params=all_[start : start + BATCH])

    def figures(self, group: str, figures: Mapping[str, float], *, step: int) -> None:
        """Take figures as metrics, with `_at_` for the @, which MLflow does not allow."""
        for name, value in figures.items():
            self._client.log_metric(self.key, _plain(f"{group}/{name}"), float(value), step=step)

    def file(self, path: Path) -> None:
        """Keep a file as an artifact."""
        self._client.log_artifact(self.key, str(path))

    def end(self, *, failed: bool) -> None:
        """Close the run."""
        self._client.set_terminated(self.key, status="FAILED" if failed else "FINISHED")


class WandbTracker:
    """Writes to Weights & Biases."""

    def __init__(self, config: TrackingConfig, *, name: str, key: str | None = None) -> None:
        """Begin a run, or go on with the one whose id is `key`.

        Raises:
            ConfigError: wandb is not installed.
        """
        wandb = import_extra("wandb", extra="wandb", task="tracking.to")
        self.key = key or uuid4().hex[:12]
        self._run = wandb.init(
            project=config.project or name,
            name=name,
            id=self.key,
            resume="allow",
            mode=config.wandb_mode,
        )

    def settings(self, settings: Mapping[str, Any]) -> None:
        """Take the settings as the run's configuration."""
        self._run.config.update(dict(settings), allow_val_change=True)

    def figures(self, group: str, figures: Mapping[str, float], *, step: int) -> None:
        """Take figures; epochs begin anew with each fit, so `epoch` is a figure of its group."""
        named = {f"{group}/{name}": value for name, value in figures.items()}
        self._run.log(named | {f"{group}/step": step})

    def file(self, path: Path) -> None:
        """Keep a copy of a file."""
        self._run.save(str(path), base_path=str(path.parent), policy="now")

    def end(self, *, failed: bool) -> None:
        """Close the run."""
        self._run.finish(exit_code=int(failed))


class Tracking:
    """Tells all trackers of a run; one that fails is left out from then on."""

    def __init__(
        self, trackers: Mapping[str, Tracker] | None = None, *, say: Callable[[str], None]
    ) -> None:
        """Take the trackers by name; `say` is told what fails."""
        self._trackers, self._say = dict(trackers or {}), say

    def settings(self, settings: Mapping[str, Any]) -> None:
        """Give them the settings."""
        self._tell(lambda tracker: tracker.settings(settings))

    def figures(self, group: str, figures: Mapping[str, float], *, step: int) -> None:
        """Give them figures."""
        self._tell(lambda tracker: tracker.figures(group, figures, step=step))

    def files(self, paths: Sequence[Path]) -> None:
        """Give them files."""
        for path in paths:
            self._tell(partial(_keep, path=path))

    def end(self, *, failed: bool) -> None:
        """Close the run with each."""
        self._tell(lambda tracker: tracker.end(failed=failed))

    def _tell(self, tell: Callable[[Tracker], None]) -> None:
        for name, tracker in list(self._trackers.items()):
            try:
                tell(tracker)
            except Exception as error:  # noqa: BLE001 - a run does not end because it is watched
                del self._trackers[name]
                self._say(f"tracking with {name} failed, and the run goes on without it: {error}")


def _keep(tracker: Tracker, path: Path) -> None:
    tracker.file(path)


KINDS: dict[str, Callable[..., Tracker]] = {"mlflow": MlflowTracker, "wandb": WandbTracker}
"""The trackers by the name that `tracking.to` has for them."""


@contextmanager
def open_tracking(
    config: TrackingConfig,
    *,
    name: str,
    work: Path,
    say: Callable[[str], None],
    others: Mapping[str, Tracker] | None = None,
) -> Iterator[Tracking]:
    """Open the trackers that the settings name, and close them when the block ends.

    Args:
        config: which.
        name: what the run is called.
        work: the folder in which an interrupted run is found again.
        say: is told what fails later.
        others: trackers that are open already, by name.

    Raises:
        ConfigError: a tracker's package is not installed, or a tracker cannot begin.
    """
    path = work / STATE
    kept = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    trackers = {kind: _open(kind, config, name=name, key=kept.get(kind)) for kind in config.to}
    if trackers:
        write_text_atomic(path, json.dumps({kind: each.key for kind, each in trackers.items()}))
    tracking, failed = Tracking(trackers | dict(others or {}), say=say), True
    try:
        yield tracking
        failed = False
    finally:
        tracking.end(failed=failed)


def _open(kind: str, config: TrackingConfig, *, name: str, key: str | None) -> Tracker:
    """Open a tracker.

    Raises:
        ConfigError: it cannot begin.
    """
    try:
        return KINDS[kind](config, name=name, key=key)
    except RecallError:
        raise
    except Exception as error:  # noqa: BLE001 - each package has errors of its own
        raise ConfigError(
            f"tracking.to: {kind} cannot begin: {error}; correct the settings under [tracking], or "
            "leave it out"
        ) from None


def _plain(name: str) -> str:
    """A name that MLflow takes."""
    return re.sub(r"[^\w\-./ ]", "_", name.replace("@", "_at_"))
