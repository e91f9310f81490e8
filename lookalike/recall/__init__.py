"""How much of the exact answer an index finds, and what would make it more."""
