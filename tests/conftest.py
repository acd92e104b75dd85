"""What every test shares: the environment that TensorFlow reads, and Hypothesis without a clock."""

from __future__ import annotations

from hypothesis import settings

from towers.environment import prepare

prepare()  # before a test module imports TensorFlow

# An example's time depends on what else the machine does; a deadline would fail at random.
settings.register_profile("no-deadline", deadline=None)
settings.load_profile("no-deadline")
