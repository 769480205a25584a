"""The review worker: a queue of review items behind an HTTP API. People's decisions become superseding verdicts."""
