"""How good a model is: ranks over the full corpus, and the metrics of them."""
