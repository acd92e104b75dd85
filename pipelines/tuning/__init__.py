"""The search for better settings, trial after trial, on the validation split."""
