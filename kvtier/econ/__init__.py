"""What cached tokens cost: pure functions over facts that the user can replace, each with its source and date."""
