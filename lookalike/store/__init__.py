"""What lies in a store: storage, shards, ledger, snapshots, runs."""
