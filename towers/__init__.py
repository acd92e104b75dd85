"""The model: what is learned, and the maths. Knows no files, no jobs, no servers."""

from towers.environment import prepare

prepare()
