"""Why a target has its score: exact parts that sum to it."""
