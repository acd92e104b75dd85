"""The offline jobs, the composition root and the command line."""
