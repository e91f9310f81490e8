"""Bytes become pixels: formats, limits, colour, and the process that keeps crashes away."""
