"""The family: how the features of a user and of an item meet in a score."""
