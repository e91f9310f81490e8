"""Groups of near-copies in a whole store: a join of its vectors with themselves, list by list."""
