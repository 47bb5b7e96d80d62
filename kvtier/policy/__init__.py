"""Which block leaves a full tier: one algorithm a file, names only, no I/O and no clock."""
