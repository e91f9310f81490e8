"""What one query at a time takes, alone and beside busy processes: `make bench-query`."""

VARIABLE = "OPENBLAS_NUM_THREADS"
"""What the threads of numpy's BLAS are set by; searches must not depend on it."""
