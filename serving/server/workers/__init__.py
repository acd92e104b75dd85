"""Several processes that are one server: they share its ports, and each change reaches all."""
