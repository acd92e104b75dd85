"""The search of hyperparameters: trials that are compared on the validation split."""
