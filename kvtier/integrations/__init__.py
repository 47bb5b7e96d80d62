"""Adapters for inference frameworks; each needs its framework, which kvtier does not install."""
