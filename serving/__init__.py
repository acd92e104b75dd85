"""What answers queries. Reads bundles and owns their format; imports no training code."""

from towers.environment import prepare

prepare()
