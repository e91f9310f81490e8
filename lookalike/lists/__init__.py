"""Inverted lists in files: encoding, regrouping, reading them in place."""
