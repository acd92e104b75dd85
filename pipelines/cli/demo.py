"""The demo: the whole job on MovieLens 100k, an answer in each direction, a page to explore.

It ends with a film that came out after the data was collected, and is found by its features.
"""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Any

from rich.console import Console

from pipelines.cli.movielens import fetch_movielens_100k
from pipelines.cli.query import titles_of
from pipelines.cli.show_explanations import show_explanation
from pipelines.cli.show_figures import show_results
from pipelines.cli.show_hits import show_hits
from pipelines.config import load_config
from pipelines.progress import Reporter
from pipelines.run import run
from serving.atomic import write_text_atomic
from serving.retrieval.retriever import Retriever
from serving.server.process import Addresses
from serving.server.process import run as run_server
from serving.server.runtime.logs import configure
from serving.server.runtime.settings import ServerSettings
from towers.typed import parse

QUERIES: dict[str, tuple[str, dict[str, Any]]] = {
    "u2i": ("Films for user 1", {"id": 1, "exclude_seen": True}),
    "i2i": ("Films like Star Wars", {"id": 50}),
    "u2u": ("Users like user 1", {"id": 1}),
    "i2u": ("Users to tell about Fargo", {"id": 100, "exclude_seen": True}),
}
"""A title and the query of each direction."""

SHOWN = {"i": ("title", "year"), "u": ("age", "gender", "occupation")}
"""The columns to show of items, and of users."""

NEWCOMER: dict[str, Any] = {
    "age": 30.0,
    "gender": "F",
    "occupation": "scientist",
    "history": [50, 172, 181],
}
"""A user that training has never seen, with three films: the first Star Wars trilogy."""

NEW_FILM: dict[str, Any] = {
    "item_id": 100_000,
    "title": "The Matrix",
    "year": 1999,
    "genres": ["Action", "Sci-Fi", "Thriller"],
}
"""A film that training has never seen: the ratings are of 1997 and 1998."""


def run_demo(folder: Path, reporter: Reporter) -> Path:
    """Download the data, run the job, query the result, and return the models directory.

    Raises:
        DataError: the data cannot be downloaded.
    """
    with reporter.stage("fetch MovieLens 100k"):
        fetch_movielens_100k(folder, say=reporter.say)
    config = folder / "movielens-100k.toml"
    text = resources.files("pipelines.cli").joinpath("demo.toml").read_text(encoding="utf-8")
    write_text_atomic(config, text)
    models = folder / "models"
    show_results(reporter.console, run(load_config(config), models, reporter=reporter))
    retriever = Retriever.open(models)
    for direction, (title, query) in QUERIES.items():
        hits = retriever.retrieve(direction, k=5, **query)
        show_hits(reporter.console, hits, title=f"{direction}: {title}", show=SHOWN[direction[-1]])
    hits = retriever.retrieve("u2i", features=NEWCOMER, k=5, exclude_seen=True)
    title = "u2i: Films for a newcomer: a scientist of 30 who liked the Star Wars trilogy"
    show_hits(reporter.console, hits, title=title, show=SHOWN["i"])
    _show_new_film(reporter.console, retriever)
    return models


def _show_new_film(console: Console, retriever: Retriever) -> None:
    """Put a film in as a server's clients may, and show where it is found and why.

    It is gone with the retriever: the published version stays as it is.
    """
    retriever.apply(retriever.change("item", upsert=[NEW_FILM]))
    title, id = f"{NEW_FILM['title']} ({NEW_FILM['year']})", NEW_FILM["item_id"]
    hits = retriever.retrieve("i2i", id=id, k=5)
    heading = f"i2i: Films like {title}, which training has never seen"
    show_hits(console, hits, title=heading, show=SHOWN["i"])
    everything = retriever.catalogue("item").size
    ids = retriever.retrieve("u2i", features=NEWCOMER, k=everything, exclude_seen=True)["id"]
    place = 1 + ids.tolist().index(id)
    console.print(f"Of {len(ids):,} films, {title} is number {place:,} for the newcomer. Why:")
    found = retriever.explain("u2i", source={"features": NEWCOMER}, target={"id": id})
    titles = titles_of(retriever, found, columns=["title"])
    show_explanation(console, found, limit=5, titles=titles)


def serve_demo(console: Console, models: Path, *, port: int) -> None:
    """Serve the demo's models directory on this machine until Ctrl-C, and print the address.

    Raises:
        ConfigError: the port is in use.
    """
    configure("warning", format=None)

    def say(addresses: Addresses) -> None:
        text = f"Explore it at {addresses.rest}/ in a browser. Ctrl-C stops the server."
        console.print(text, markup=False, highlight=False, soft_wrap=True)

    settings = parse(ServerSettings, {"port": port, "grpc_port": 0}, where="demo")
    run_server(models, settings=settings, ready=say)
