"""Deployment: the configuration files that TF Serving reads beside the models.

    ROOT/
      models.config       which models to serve; written whenever a version becomes current
      batching.config     how to batch requests, if the server is told to; yours to edit
      monitoring.config   where Prometheus finds the figures; yours to edit

They are text of TF Serving's own protos. Every path is below `MOUNT`, where ROOT is mounted in the
server's container: whole, for the links below ROOT/models lead out of that folder.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from serving.atomic import write_text_atomic

MOUNT = "/fm-recall"
"""Where a container has the models directory."""

MODELS_CONFIG = "models.config"
BATCHING_CONFIG = "batching.config"
MONITORING_CONFIG = "monitoring.config"

BATCHING = """\
# BatchingParameters of TF Serving. Off unless the server is started with --enable_batching and
# --batching_parameters_file; docs/deployment.md says which requests can be batched.

# Never true: TF Serving pads lists with their first value, not with the marker of a missing one,
# so histories would change and answers be wrong without an error.
pad_variable_length_inputs: false

max_batch_size { value: 64 }
batch_timeout_micros { value: 1000 }
max_enqueued_batches { value: 100 }

# About the number of cores.
num_batch_threads { value: 4 }
"""

MONITORING = """\
# MonitoringConfig of TF Serving.
prometheus_config {
  enable: true
  path: "/monitoring/prometheus/metrics"
}
"""


def models_config(names: Iterable[str]) -> str:
    """Write a ModelServerConfig that serves these models, each its latest version.

    The latest is the current: `Store` links no version above it. A policy of one specific version
    would let TF Serving unload a model whose link a rollback has removed, until it reads this file
    again.
    """
    configs = "".join(
        f"""\
  config {{
    name: "{name}"
    base_path: "{MOUNT}/models/{name}"
    model_platform: "tensorflow"
    model_version_policy {{ latest {{ num_versions: 1 }} }}
  }}
"""
        for name in sorted(names)
    )
    return f"# Written by fm-recall; edits are lost.\nmodel_config_list {{\n{configs}}}\n"


def write_configs(root: Path, names: Iterable[str]) -> None:
    """Write the configuration files into the models directory; those to edit only once.

    One writer at a time; what one that was killed left behind is removed.
    """
    texts = {BATCHING_CONFIG: BATCHING, MONITORING_CONFIG: MONITORING}
    texts = {name: text for name, text in texts.items() if not (root / name).exists()}
    for name, text in ({MODELS_CONFIG: models_config(names)} | texts).items():
        for abandoned in root.glob(f".{name}.*"):
            abandoned.unlink()
        write_text_atomic(root / name, text)
