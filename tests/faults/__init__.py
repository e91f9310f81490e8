"""Faults for a real run: the nth change of the store kills it, fails, or is cut short.

A `backend` is where stores lie, and makes the fault: in a `folder` by `shim.c`, which is loaded
into the process before its C library and sees every change, also those of native code; on object
storage (`bucket`) by a proxy before a real server. `injector` runs commands, `scenarios` says
which, `checking` what must hold afterwards, and `power_loss` what may be lost when the machine
stops.
"""
