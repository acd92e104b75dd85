"""Side by side: this product and the tools people use now, on one split with one metric code."""
