"""What values mean, which rows they have, and how users and items become sparse features."""
