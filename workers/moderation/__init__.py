"""The way of an event, one file a stage: intake, decode, ledger, dedup, judge, decide, outbox."""
