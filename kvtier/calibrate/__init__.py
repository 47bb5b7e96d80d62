"""What this machine does with a model, measured in a minute or two and kept as a profile."""
