"""Replaying request traces through the decisions that the live store runs: no bytes, no I/O but the trace's file."""
