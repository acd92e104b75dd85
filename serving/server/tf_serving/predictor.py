"""Predictor: answers TF Serving's Predict, from the arrays of a request to those of the answer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from serving.server.errors import TooLargeError
from serving.server.runtime.served_version import Served
from serving.server.runtime.server_core import ServerCore
from serving.server.tf_serving.tensor_specs import Signature
from serving.version.saved_models.names import EXCLUDE, FEATURES, ITEM, QUERY, RANK, RECALL, K
from towers.errors import QueryError
from towers.features.schema import Side

DEFAULT_SIGNATURE = "serving_default"
"""The signature of a request that names none."""

MOST_BAGS = 64
"""The most rows of a request for the features that vectors are sums of. The answer has one vector
for each feature of each row. The largest warm-up request has as many rows."""

TOWERS: Mapping[str, Side] = {"user_tower": "user", "item_tower": "item"}
"""The models that answer with vectors."""

Arrays = Mapping[str, NDArray[Any]]


class UnknownSignatureError(QueryError):
    """A signature that the model does not have."""

    def __init__(self, name: str) -> None:
        super().__init__(f'Serving signature key "{name}" not found.')
        self.name = name


@dataclass(frozen=True, eq=False)
class Target:
    """What a request asks for: a version, a model of it, and a signature of the model."""

    served: Served
    model: str
    signature: Signature


class Predictor:
    """Answers as the SavedModels do, by the core's retriever."""

    def __init__(self, core: ServerCore) -> None:
        """Answer by `core`."""
        self.core = core
        self._signatures: WeakKeyDictionary[Served, dict[tuple[str, str], Signature]] = (
            WeakKeyDictionary()
        )

    def find(
        self,
        model: str,
        signature: str,
        *,
        version: int | None = None,
        label: str | None = None,
    ) -> Target:
        """Find what is asked; an empty `signature` is `serving_default`.

        Raises:
            NotFoundError: no such model, or no such version of it.
            UnknownSignatureError: the model has no such signature.
            QueryError: no such label.
        """
        served = self.core.versions.find(model, version=version, label=label)
        name = signature or DEFAULT_SIGNATURE
        known = self._signatures.setdefault(served, {})
        found = known.get((model, name))
        if found is None:
            definitions = served.signatures[model]
            if name not in definitions:
                raise UnknownSignatureError(name)
            found = known[model, name] = Signature.of(name, definitions[name])
        return Target(served, model, found)

    async def predict(
        self, target: Target, inputs: Arrays, *, outputs: Iterable[str] = ()
    ) -> Arrays:
        """Answer a request whose arrays have the types and ranks of the signature.

        Args:
            target: what is asked.
            inputs: the arrays by name, as many rows each.
            outputs: which to answer with; all, if none is named.

        Returns:
            `vector` [b, 1 + d] float32 of a tower, or what it is made of; `ids` [b, k] and
            `scores` [b, k] float32; or of the ranker, `scores` [n] or what they are sums of.

        Raises:
            QueryError: an input is missing or unknown, the inputs have different numbers of rows
                or no rows, k is out of range, or an output is unknown.
            TooLargeError: there are too many rows.
            as `ServerCore.answer`.
        """
        wanted = _wanted(target.signature, outputs)
        check_inputs(target.signature, inputs.keys())
        if target.model == RANK:
            found = await self._rank(target, inputs)
            return {name: found[name] for name in wanted}
        is_large = target.signature.name == FEATURES
        limit = self.core.settings.max_batch
        _check_batch(inputs, limit=min(limit, MOST_BAGS) if is_large else limit)
        if target.model in TOWERS:
            found = await self._encode(target, inputs)
        else:
            found = await self._retrieve(target, inputs)
        return {name: found[name] for name in wanted}

    async def _encode(self, target: Target, inputs: Arrays) -> Arrays:
        """Ask for vectors, or for the features that they are sums of."""
        side = TOWERS[target.model]
        if target.signature.name == FEATURES:
            tower = target.served.retriever.tower(side)
            return await self.core.compute(
                target.served, partial(tower.active_features, inputs), model=target.model
            )
        vectors = await self.core.encode(target.served, side, inputs, model=target.model)
        return {"vector": vectors}

    async def _rank(self, target: Target, inputs: Arrays) -> Arrays:
        """Ask for the scores of pairs, or for their parts.

        Raises:
            QueryError: the inputs are not of as many queries, items or pairs as each other, or a
                place is out of range.
        """
        for prefix, place in (("user_", QUERY), ("item_", ITEM)):
            given = {name: values for name, values in inputs.items() if name.startswith(prefix)}
            _check_batch(given, limit=self.core.settings.max_batch)
            size, places = len(next(iter(given.values()))), inputs[place]
            if places.size and not 0 <= places.min() <= places.max() < size:
                raise QueryError(
                    f"{place}: expected places from 0 to {size - 1}, of the rows of {prefix}*, "
                    f"received {places.min()} to {places.max()}"
                )
        pairs = {name: inputs[name] for name in (QUERY, ITEM, RECALL)}
        _check_batch(pairs, limit=self.core.settings.max_results)
        ranker = target.served.retriever.parts.ranker
        ask = partial(ranker.call, target.signature.name, inputs)
        return await self.core.compute(target.served, ask, model=target.model)

    async def _retrieve(self, target: Target, inputs: Arrays) -> Arrays:
        """Ask for candidates."""
        features = {name: values for name, values in inputs.items() if name not in {K, EXCLUDE}}
        size = len(next(iter(features.values())))
        k = self._checked(inputs[K]) if K in inputs else np.full(size, _default_k(target))
        most = self.core.settings.max_results
        if size * int(k.max(initial=1)) > most:
            raise TooLargeError(
                f"{K}: expected at most {most} results in one answer, received {size} rows with "
                f"{K} of up to {k.max()}; send several requests"
            )
        question = target.served.retriever.ask_packed(
            target.model,
            features,
            k=k,
            exclude=inputs.get(EXCLUDE),
        )
        hits = await self.core.answer(target.served, question, model=target.model)
        return {"ids": hits.ids, "scores": hits.scores}

    def _checked(self, ks: NDArray[Any]) -> NDArray[Any]:
        """Refuse numbers of results that are out of range.

        Raises:
            QueryError: one is.
        """
        limit = self.core.settings.max_k
        wrong = ks[(ks < 1) | (ks > limit)]
        if wrong.size:
            raise QueryError(f"{K}: expected at least 1 and at most {limit}, received {wrong[0]}")
        return ks


def _check_batch(inputs: Arrays, *, limit: int) -> None:
    """Refuse inputs without rows, with too many, or with different numbers of rows."""
    sizes = {name: len(values) for name, values in inputs.items() if values.ndim}
    size = next(iter(sizes.values()), 0)
    if any(other != size for other in sizes.values()):
        raise QueryError(
            "Batching Run() input tensors must have equal 0th-dimension size: received "
            f"{sizes}; send as many rows of each input"
        )
    if size == 0:
        raise QueryError("Batching Run() input tensors must have at least one row: received 0")
    if size > limit:
        raise TooLargeError(
            f"Batching Run() input tensors must have at most {limit} rows: received {size}; "
            "send several requests"
        )


def check_inputs(signature: Signature, names: Iterable[str]) -> None:
    """Refuse a request that lacks an input of the signature or has another, as TF Serving does.

    Raises:
        QueryError: it does.
    """
    sent, known = set(names), set(signature.inputs)
    if sent == known:
        return
    if len(sent) != len(known):
        raise QueryError(
            f"input size does not match signature: {len(sent)}!={len(known)} len({_set(sent)}) != "
            f"len({_set(known)}). Sent extra: {_set(sent - known)}. Missing but required: "
            f"{_set(known - sent)}."
        )
    name = min(known - sent)
    raise QueryError(
        f"Signature input alias: {name}(feed name: {signature.inputs[name].feed}) not found in "
        f"request and no default value provided. Inputs expected to be in the request {_set(sent)},"
        " or default input alias set: "
    )


def _wanted(signature: Signature, outputs: Iterable[str]) -> list[str]:
    """The names of the outputs to answer with, as TF Serving reads an output filter.

    Raises:
        QueryError: one is unknown, or named twice.
    """
    wanted = list(outputs)
    for name in wanted:
        if name not in signature.outputs:
            raise QueryError(
                f"output tensor alias not found in signature: {name} Outputs expected to be in the "
                f"set {_set(signature.outputs)}."
            )
        if wanted.count(name) > 1:
            raise QueryError(f"duplicate output tensor alias: {name}")
    return wanted or list(signature.outputs)


def _default_k(target: Target) -> int:
    """The number of results that the SavedModel was exported with."""
    return int(target.served.retriever.bundle.manifest.config["export"]["k"])


def _set(names: Iterable[str]) -> str:
    return f"{{{','.join(sorted(names))}}}"
