"""The pure core: events, the ledger, micro-batches, decisions. No I/O and no clock."""
