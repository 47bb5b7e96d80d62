"""What a cached token costs: models, prices and hardware with their sources, formulas, profiles, and a ledger.

Facts and formulas alone: numpy and the standard library, no store, no torch.
"""
