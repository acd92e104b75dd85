"""The second stage: models that score a user, an item and the moment together, by their fields."""
