"""Ways to write a block down in fewer bytes than it has."""
