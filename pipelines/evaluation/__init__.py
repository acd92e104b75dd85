"""The evaluation of a model: rankings of the full corpus, and their metrics."""
