"""The tables that a run reads, each as a source of chunks that know where every row was."""
