"""What providers of hosted models charge for the same traffic: their rules as data, one engine that applies them."""
