"""One file for each medium, behind the contract in ``base``."""
