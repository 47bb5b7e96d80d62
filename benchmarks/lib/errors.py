"""Errors that end a benchmark before it measures the wrong thing.

    BenchError
    └── SetupError         something the benchmark needs is missing or damaged

A measurement that cannot be made raises kvtier's own ``MeasureError``.

A script prints the message and ends with exit status 2.
"""


class BenchError(Exception):
    """Root of the tree."""


class SetupError(BenchError):
    """A package, a download, a device or a system call the benchmark needs is not there."""
