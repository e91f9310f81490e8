"""Faults for a real run: the nth change of the store kills it, fails, or is cut short.

`shim.c` is loaded into the process before its C library and sees every change of the store, also
those of native code; `injector` runs commands with it, `scenarios` says which, `checking` what must
hold afterwards, and `power_loss` what may be lost when the machine stops.
"""
