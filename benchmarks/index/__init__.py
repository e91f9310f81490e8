"""The index beside what people use, on the same vectors and memory: `make bench-index`."""
