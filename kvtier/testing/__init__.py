"""The laws of tiers and policies as test classes to inherit, and tiers that misbehave on purpose.

Needs pytest and hypothesis; the rest of kvtier does not.
"""
