"""Beam transforms, one file per stage, with as little logic as possible: that is in `lookalike`."""
