"""What a run changes: the listing against the ledger, contents against names."""
