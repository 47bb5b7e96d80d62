"""What the benchmark scripts share: a model, real text, the machine's limits, and statistics."""
