"""A page to explore a store, and the JSON API beneath it."""
