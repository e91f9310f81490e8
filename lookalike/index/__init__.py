"""From vectors to a certified index: plan, sample, train, encode, search, measure."""
