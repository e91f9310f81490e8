"""Learning from a store's own pictures: weights of features, and projections of vectors."""
