"""Which index for how many vectors, why, and what it will cost."""
