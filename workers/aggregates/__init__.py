"""The aggregates worker: counts verdicts, sums strikes and writes signals, on Faust."""
