"""The correctness oracle: the same prompts through every way a store can serve them, against no store at all."""
