"""Every metric of the project, with its unit and what it means when it rises.

Every label has a fixed set of values, and none names a tenant.
"""

from __future__ import annotations

from prometheus_client import Counter, Enum, Gauge, Histogram

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)

STATE = Enum(
    "guardline_worker_state",
    "The worker's current state.",
    states=["starting", "running", "draining", "stopped", "failed"],
)
RECEIVED = Counter("guardline_records_received_total", "Records read.", ["topic"])
DEAD_LETTERS = Counter(
    "guardline_dead_letters_total", "Messages that nobody judged. Rising: a producer is broken.", ["reason"]
)
SKIPPED = Counter("guardline_skipped_total", "Records without a message, about which nothing is written.", ["reason"])
IGNORED_FIELDS = Counter(
    "guardline_ignored_fields_total",
    "Fields of events that could not be used as they were. Rising: a producer changed what it sends.",
    ["field"],
)
SHORTENED = Counter(
    "guardline_shortened_total", "Judged records whose outputs were shortened to fit into their topics."
)
DECISIONS = Counter("guardline_decisions_total", "Verdicts by decision.", ["decision"])
UNKNOWN_TENANTS = Counter(
    "guardline_unknown_tenants_total",
    "Verdicts for tenants without a policy, by the policy that decided. Rising: a tenant is new, or mistyped.",
    ["policy"],
)
DUPLICATES = Counter("guardline_duplicates_total", "Events seen before. Rising: a producer retries.")
REUSED = Counter("guardline_assessments_reused_total", "Verdicts that reuse a stored assessment.")
UNAVAILABLE = Counter("guardline_unavailable_total", "Verdicts without an assessment. Rising: the engine fails.")
FORGOTTEN = Counter(
    "guardline_forgotten_total",
    "Verdicts that were not stored in Redis. Rising: Redis is down, or slower than the workers.",
)
STALE = Counter(
    "guardline_stale_completions_total",
    "Results that were dropped because their partition had been revoked. Rising: rebalances, or slow judgements.",
)
DELETED_UNREAD = Counter(
    "guardline_offsets_deleted_unread_total",
    "Offsets of input topics that were deleted before they were read. Rising: the lag is longer than the retention.",
)
COMMITTED = Counter("guardline_records_committed_total", "Input records whose outputs are committed.")
COMMIT_SECONDS = Histogram(
    "guardline_commit_seconds", "Duration of a transaction. Rising: the brokers are slow.", buckets=SECONDS
)
ABORTS = Counter("guardline_aborts_total", "Transactions that were aborted and retried.")
PRODUCERS_REPLACED = Counter(
    "guardline_producers_replaced_total",
    "Producers replaced, because a request of a transaction may still be in flight. Rising: connections break.",
)
UNCOMMITTED = Gauge("guardline_uncommitted_records", "Records held in memory. Intake pauses at the high-water mark.")
PAUSED = Gauge("guardline_intake_paused", "1 while backpressure pauses intake.")
BATCH_SECONDS = Histogram("guardline_batch_seconds", "From a closed micro-batch to its verdicts.", buckets=SECONDS)
REDIS_UP = Gauge(
    "guardline_redis_up",
    "0 while Redis does not answer or policy changes are not followed: no deduplication, last valid policies.",
)
