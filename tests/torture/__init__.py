"""Faults done to stores on purpose, and a count of what was lost or wrong afterwards."""
