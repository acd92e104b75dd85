"""The offline jobs, the composition root and the command line."""

from towers.environment import prepare

prepare()
