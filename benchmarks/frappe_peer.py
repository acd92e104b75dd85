"""One peer on Frappe, in an environment of its own: DeepCTR's rankers, or myFM.

Run by `benchmarks.frappe --peers`: PYTHON -m benchmarks.frappe_peer KIND DATA OUT, where DATA is an
.npz of the rows and labels of each part. Imports nothing of the product.
"""

from __future__ import annotations

import importlib
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse
from sklearn.metrics import log_loss, roc_auc_score

SIZE, EPOCHS, PATIENCE, BATCH = 10, 40, 3, 4096


def rank_by_deepctr(kind: str, data: dict[str, Any], seed: int) -> np.ndarray[Any, Any]:
    """Train DeepCTR's model of a kind; the probabilities of the test rows."""
    columns = importlib.import_module("deepctr.feature_column")
    models = importlib.import_module("deepctr.models")
    keras = importlib.import_module("tensorflow.keras")
    names = [f"f{number}" for number in range(data["train"].shape[1])]
    sizes = data["train"].max(axis=0), data["validation"].max(axis=0), data["test"].max(axis=0)
    features = [
        columns.SparseFeat(name, int(size) + 1, embedding_dim=SIZE)
        for name, size in zip(names, np.max(sizes, axis=0), strict=True)
    ]
    settings = {"fm": ("AFM", {"use_attention": False}), "afm": ("AFM", {"afm_dropout": 0.2})}
    settings |= {"fwfm": ("FwFM", {"dnn_hidden_units": ()}), "deepfm": ("DeepFM", {})}
    model_name, options = settings[kind]
    model = getattr(models, model_name)(features, features, seed=seed, **options)
    model.compile(keras.optimizers.Adam(1e-3), "binary_crossentropy")

    def inputs(part: str) -> dict[str, Any]:
        return dict(zip(names, data[part].T, strict=True))

    stop = keras.callbacks.EarlyStopping(patience=PATIENCE, restore_best_weights=True)
    model.fit(
        inputs("train"),
        data["train_labels"],
        validation_data=(inputs("validation"), data["validation_labels"]),
        batch_size=BATCH,
        epochs=EPOCHS,
        callbacks=[stop],
        verbose=2,
    )
    return np.asarray(model.predict(inputs("test"), batch_size=BATCH, verbose=0)).ravel()


def rank_by_myfm(data: dict[str, Any], seed: int) -> np.ndarray[Any, Any]:
    """Sample myFM's probit machine; the probabilities of the test rows."""
    myfm = importlib.import_module("myfm")
    model = myfm.MyFMClassifier(rank=SIZE, random_seed=seed)
    offsets = np.cumsum([0, *(data["train"].max(axis=0)[:-1] + 1)])
    width = int(data["train"].max(axis=0).sum()) + data["train"].shape[1]

    def matrix(part: str) -> sparse.csr_matrix:
        rows = data[part] + offsets
        starts = np.arange(len(rows) + 1) * rows.shape[1]
        ones = np.ones(rows.size)
        return sparse.csr_matrix((ones, rows.ravel(), starts), shape=(len(rows), width))

    model.fit(matrix("train"), data["train_labels"] > 0, n_iter=100)
    return np.asarray(model.predict_proba(matrix("test")))


def main() -> None:
    """Train, and write the figures of the test rows."""
    kind, path, out, seed = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4])
    with np.load(path) as file:
        data = dict(file)
    start = time.perf_counter()
    library, _, model = kind.partition("-")
    p = rank_by_myfm(data, seed) if library == "myfm" else rank_by_deepctr(model, data, seed)
    labels = data["test_labels"]
    figures = {
        "auc": float(roc_auc_score(labels, p)),
        "log_loss": float(log_loss(labels, p)),
        "seconds": time.perf_counter() - start,
    }
    out.write_text(json.dumps(figures), encoding="utf-8")


if __name__ == "__main__":
    main()
