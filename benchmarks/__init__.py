"""How fast the stages are on this machine, beside plain ways: `make bench` and more."""
