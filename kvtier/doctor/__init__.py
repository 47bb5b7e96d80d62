"""Looking after a store's directory from outside: checking, repairing, carrying away, making smaller."""
