"""Every metric of the project: its unit, its labels, what it counts, and what a change of it means.

Every label has a fixed set of values, and none names a tenant. docs/metrics.md is generated from this catalogue. Counts
that users add up are made at the commit, so that work that is repeated after a rebalance counts once.
"""

from __future__ import annotations

import math

from schemas.reasons import DeadLetterReason
from workers.metric import Catalogue, Label

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
LATENCIES = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800)

CATALOGUE = Catalogue()

GROUP = Label("group", bounded_by="the consumer groups of the process: `kafka.group` for a moderation worker")

STATE = CATALOGUE.states(
    "guardline_worker_state",
    "1 for the worker's current state.",
    "Failed, or starting again and again: the log's last line, `worker ended`, has the cause.",
    ["starting", "running", "draining", "stopped", "failed"],
)

# What arrives.

RECEIVED = CATALOGUE.counter(
    "guardline_records_received_total",
    "records",
    "Records read, also those that are read again after a rebalance.",
    "Rising: producers send more, or the worker works off a backlog.",
    Label("topic", bounded_by="the input topics"),
)
DEAD_LETTERS = CATALOGUE.counter(
    "guardline_dead_letters_total",
    "records",
    "Records without a verdict: they could not be decoded, or their outputs were too large.",
    "Rising: a producer sends invalid records.",
    Label("reason", tuple(DeadLetterReason)),
)
SKIPPED = CATALOGUE.counter(
    "guardline_skipped_total",
    "records",
    "Records without a message, about which nothing is written.",
    "Rising: a producer deletes messages, or sends more of what the settings skip.",
    Label(
        "reason",
        bounded_by="`tombstone`, `empty_text` with `events.on_empty_text: skip`, and with a mapping `deleted` or the "
        "name of a condition of `skip_when`",
    ),
)
IGNORED_FIELDS = CATALOGUE.counter(
    "guardline_ignored_fields_total",
    "fields",
    "Fields of events that could not be used as they were; the verdicts name them in `ignored_fields`.",
    "Rising: a producer changed what it sends.",
    Label("field", bounded_by="the fields of an event, and `headers`"),
)

# What comes of it.

DECISIONS = CATALOGUE.counter(
    "guardline_decisions_total",
    "verdicts",
    "Verdicts by decision.",
    "A rising share of one decision: the content changed, or a policy did.",
    Label("decision", ("allow", "review", "block")),
)
UNAVAILABLE = CATALOGUE.counter(
    "guardline_unavailable_total",
    "verdicts",
    "Verdicts without an assessment.",
    "Rising: the engine fails, and `on_unavailable` decides.",
)
UNKNOWN_TENANTS = CATALOGUE.counter(
    "guardline_unknown_tenants_total",
    "verdicts",
    "Verdicts for tenants without a policy, by the policy that decided. `default`: set with "
    "`guardline policy default`; `default-strict`: built in.",
    "Rising: a tenant is new, or its name is mistyped.",
    Label("policy", ("default", "default-strict")),
)
DUPLICATES = CATALOGUE.counter(
    "guardline_duplicates_total", "verdicts", "Verdicts on events seen before.", "Rising: a producer retries."
)
REUSED = CATALOGUE.counter(
    "guardline_assessments_reused_total",
    "verdicts",
    "Verdicts that reuse an assessment stored in Redis.",
    "Falling as a share of the verdicts: Redis lost its data, the model changed, or content repeats less.",
)
LANGUAGES = CATALOGUE.counter(
    "guardline_languages_total",
    "events",
    "Events with a text, by who named their language, with `language.detector`.",
    "A rising share of `unknown`: short texts, or a language that is not among `language.candidates`.",
    Label("source", ("producer", "detector", "unknown")),
)
SHORTENED = CATALOGUE.counter(
    "guardline_shortened_total",
    "records",
    "Judged records whose outputs were shortened to fit into their topics.",
    "Rising: `events.max_bytes` is larger than `max.message.bytes` of an output topic allows.",
)
FORGOTTEN = CATALOGUE.counter(
    "guardline_forgotten_total",
    "verdicts",
    "Verdicts that were not stored in Redis, so that their repeats are judged again.",
    "Rising: Redis is down, or slower than the workers.",
)
STALE = CATALOGUE.counter(
    "guardline_stale_completions_total",
    "records",
    "Results that were dropped because their partition had been revoked.",
    "Rising: rebalances, or slow judgements.",
)
DELETED_UNREAD = CATALOGUE.counter(
    "guardline_offsets_deleted_unread_total",
    "offsets",
    "Offsets of input topics that were deleted before a worker read them; the log names them. They include transaction "
    "markers and compacted records.",
    "Rising: the lag is longer than the retention, and messages are lost.",
)

# The commit.

COMMITTED = CATALOGUE.counter(
    "guardline_records_committed_total",
    "records",
    "Input records whose outputs are committed.",
    "Below the records received for long: the worker does not keep up.",
)
COMMIT_SECONDS = CATALOGUE.histogram(
    "guardline_commit_seconds", "seconds", "Duration of a transaction.", "Rising: the brokers are slow.", SECONDS
)
INTAKE_TO_COMMIT_SECONDS = CATALOGUE.latencies(
    "guardline_intake_to_commit_seconds",
    "From the poll that read a record to the commit of its outputs.",
    "Rising: the worker waits for the engine, for Kafka, or for slow records before it in the partition.",
    LATENCIES,
)
EVENT_TO_COMMIT_SECONDS = CATALOGUE.latencies(
    "guardline_event_to_commit_seconds",
    "From the time of an event (`created_at`, where it has one) to the commit of its verdict; of at most about 500 "
    "records of each commit.",
    "Rising, while the time from intake does not: events wait in Kafka, or arrive there late.",
    LATENCIES,
)
TRANSACTIONS = CATALOGUE.counter(
    "guardline_transactions_total",
    "transactions",
    "Transactions by their end. What an aborted one held is committed by a later one.",
    "Aborted ones rising: brokers restart or fail, or the group has removed this worker.",
    Label("result", ("committed", "aborted")),
)
PRODUCERS_REPLACED = CATALOGUE.counter(
    "guardline_producers_replaced_total",
    "producers",
    "Producers replaced before a transaction, because a request of the last one may still be in flight.",
    "Rising: connections to the brokers break.",
)

# How far it is behind.

LAG_RECORDS = CATALOGUE.gauge(
    "guardline_lag_records",
    "records",
    "Offsets of the worker's partitions that are not committed: unread, in flight or finished. The ends of the "
    "partitions are at most 2 s old. Partitions without an owner are in no worker's lag.",
    "Rising: events arrive faster than they are judged.",
    GROUP,
)
LAG_SECONDS = CATALOGUE.gauge(
    "guardline_lag_seconds",
    "seconds",
    "Age of the oldest record of the worker's partitions that is not committed, by Kafka's timestamp; 0 without one. "
    "If nothing of a partition was read yet, its age counts from when the worker learnt of it.",
    "Rising: the worker does not keep up, or an event does not finish.",
    GROUP,
)
OLDEST_DEADLINE_SECONDS = CATALOGUE.gauge(
    "guardline_oldest_deadline_seconds",
    "seconds",
    "Time until that record misses `worker.target_s`, negative when it has; `worker.target_s` without one, and "
    "while the worker starts.",
    "Falling: more workers are needed soon. Negative: the target is missed.",
    GROUP,
)
OLDEST_UNCOMMITTED_SECONDS = CATALOGUE.gauge(
    "guardline_oldest_uncommitted_seconds",
    "seconds",
    "Time since the worker read the first record that it has not committed; 0 without one.",
    "Rising, while records are committed: one event does not finish, and holds its partition.",
    GROUP,
)
ASSIGNED = CATALOGUE.gauge(
    "guardline_assigned_partitions",
    "partitions",
    "Partitions that the group has assigned to this worker.",
    "0 for long: there are more workers than partitions.",
    GROUP,
)
UNREADABLE_TOPICS = CATALOGUE.gauge(
    "guardline_unreadable_topics",
    "topics",
    "Topics that match a pattern of `topics.inputs` and are left out, because the worker's user may not read them.",
    "Above 0: the log names the topics. Nobody judges their records until the user gets READ, or the pattern changes.",
    GROUP,
)
REBALANCES = CATALOGUE.counter(
    "guardline_rebalances_total",
    "changes",
    "Changes of the assignment. Lost partitions were given to another worker before this one could commit.",
    "Rising: workers start and stop. Lost ones rising: workers were frozen, or cut off from the brokers.",
    Label("kind", ("assigned", "revoked", "lost")),
)

# What is in flight.

UNCOMMITTED = CATALOGUE.gauge(
    "guardline_uncommitted_records",
    "records",
    "Records held in memory.",
    "At `batch.high_water`: intake pauses until some are committed.",
    GROUP,
)
PAUSED = CATALOGUE.gauge(
    "guardline_intake_paused",
    "0 or 1",
    "1 while backpressure pauses intake.",
    "1 for long: the engine or the commits are slower than what arrives.",
    GROUP,
)
PAUSES = CATALOGUE.counter(
    "guardline_pauses_total",
    "pauses",
    "Times that backpressure, or a drain, began to pause partitions.",
    "Rising: intake pauses and resumes; each pause discards prefetched records.",
)
PAUSED_SECONDS = CATALOGUE.counter(
    "guardline_paused_seconds_total",
    "seconds",
    "Time in which at least one partition was paused.",
    "Rising: the engine or the commits are slower than what arrives, or one record holds its partition.",
)
QUEUE_SECONDS = CATALOGUE.histogram(
    "guardline_queue_seconds",
    "seconds",
    "From the poll to the closed micro-batch, of the first event of each micro-batch.",
    "Rising: events wait for a free place at the engine. More in flight, a faster engine or more workers help.",
    SECONDS,
)
BATCH_EVENTS = CATALOGUE.histogram(
    "guardline_batch_events",
    "events",
    "Events in a micro-batch.",
    "Falling under load: `batch.max_age_s` or `batch.max_tokens` closes micro-batches before they are full.",
    (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024),
)
BATCH_SECONDS = CATALOGUE.histogram(
    "guardline_batch_seconds",
    "seconds",
    "From a closed micro-batch to its verdicts. Events of tenants that hold, and content that is suspected of crashes, "
    "are measured separately.",
    "Rising: the engine is slow, or is retried.",
    SECONDS,
)

# The engine.

STREAM_ENGINE_SESSIONS = CATALOGUE.gauge(
    "guardline_stream_engine_sessions",
    "sessions",
    "Sessions that are open at the stream engine; only where answers are judged while they are written.",
    "At the most that the settings allow: further streams are unavailable.",
)
STREAM_ENGINE_TOKENS = CATALOGUE.counter(
    "guardline_stream_engine_tokens_total",
    "tokens",
    "Tokens that the stream engine has judged, those of repeated and replayed streams included.",
    "Rising faster than the streams: answers are longer, or sessions are lost and replayed.",
)
STREAM_ENGINE_STEP_SECONDS = CATALOGUE.histogram(
    "guardline_stream_engine_step_seconds",
    "seconds",
    "Duration of a step of the stream engine: the next tokens of all sessions that wait. Not with `vllm`.",
    "Rising: more sessions share a step, answers are longer, or the cores are busy.",
    (0.0005, 0.001, 0.0025, *SECONDS),
)
ENGINE_CALL_SECONDS = CATALOGUE.histogram(
    "guardline_engine_call_seconds",
    "seconds",
    "Duration of a call to the guard, with all its forward passes. A micro-batch needs one call, and one more after "
    "each failure.",
    "Rising: the engine is overloaded, or texts became longer.",
    SECONDS,
)
ENGINE_PROMPTS = CATALOGUE.counter(
    "guardline_engine_prompts_total",
    "prompts",
    "Prompts that the engine was given: one for each window, view and forward pass.",
    "Rising faster than the verdicts: texts are longer, disguised, or unsafe more often.",
)
ENGINE_TOKENS = CATALOGUE.counter(
    "guardline_engine_tokens_total",
    "tokens",
    "Tokens of these prompts, those that the engine has in its prefix cache included.",
    "Rising faster than the verdicts: texts are longer.",
)
JOINED = CATALOGUE.counter(
    "guardline_joined_total",
    "events",
    "Events that shared the judgement of equal content in flight.",
    "Rising: the same content is sent again and again, as spam is.",
)
FAILED_ATTEMPTS = CATALOGUE.counter(
    "guardline_failed_attempts_total",
    "attempts",
    "Attempts that failed and may be tried again: calls to the guard, requests to one model server, calls to Redis.",
    "Rising: that part is down or overloaded. Results are delayed until another attempt succeeds.",
    Label("at", ("engine", "model_server", "redis")),
)
OPEN_CIRCUITS = CATALOGUE.gauge(
    "guardline_open_circuits",
    "circuits",
    "Parts that are not called at the moment, because they have failed: a use of Redis, or a number of model servers.",
    "Above 0: the worker goes on without that part.",
    Label("circuit", ("redis_lookups", "redis_strikes", "redis_writes", "redis_notes", "model_servers")),
)

# Redis and the policies.

REDIS_UP = CATALOGUE.gauge(
    "guardline_redis_up",
    "0 or 1",
    "1 while Redis answers and policy changes are followed. Checked every second, also without events. Not a number "
    "until the worker has asked Redis.",
    "0: no deduplication, and the last valid policies stay.",
)
REDIS_UP.set(math.nan)
STRIKES_LOOKED_UP = CATALOGUE.counter(
    "guardline_strikes_looked_up_total",
    "events",
    "Events for whose author the strikes were looked up, because a rule of the tenant's policy has `min_strikes`. "
    "`unknown`: Redis did not answer, or what it has is invalid.",
    "`unknown` rising: Redis is down, and rules with `min_strikes` do not match.",
    Label("result", ("known", "unknown")),
)
POLICIES = CATALOGUE.gauge(
    "guardline_policies",
    "policies",
    "Policies in force in this worker, the default included.",
    "Falling to 0: Redis has lost its data, and a worker that started later found none.",
)
POLICY_CHANGE = CATALOGUE.gauge(
    "guardline_policy_change",
    "number",
    "Number of the newest change of a policy that this worker has applied.",
    "Different between workers for more than seconds: the lower ones do not follow the changes.",
)
POLICIES_REFUSED = CATALOGUE.counter(
    "guardline_policies_refused_total",
    "documents",
    "Stored policies that were refused, because they are invalid or older than the one in force.",
    "Rising: a policy that was set is not in force; the log has the reason.",
)

# The review worker.

REVIEW_COMMANDS = CATALOGUE.counter(
    "guardline_review_commands_total",
    "commands",
    "Commands of people, systems and the review worker itself. Only `guardline worker review` has this metric.",
    "`refused` rising: people click on the same items, or a client breaks the rules. The answers say which.",
    Label(
        "kind",
        (
            "lease",
            "release",
            "view",
            "decide",
            "undo",
            "skip",
            "reopen",
            "appeal",
            "arrive",
            "settle",
            "end_lease",
            "expire",
            "forget",
            "republish",
        ),
    ),
    Label("outcome", ("applied", "repeated", "refused")),
)
REVIEW_DECISIONS = CATALOGUE.counter(
    "guardline_review_decisions_total",
    "decisions",
    "Decisions of people, those that somebody undoes included. Only `guardline worker review` has this metric.",
    "0 while items wait: nobody reviews.",
    Label("decision", ("allow", "block", "escalate")),
)
REVIEW_WAITING = CATALOGUE.gauge(
    "guardline_review_waiting",
    "items",
    "Review items that somebody can take, by how much of their time is over. Only `guardline worker review` has it.",
    "`overdue` above 0: the deadline of a tenant's policy is missed.",
    Label("due", ("first_half", "second_half", "overdue")),
)
REVIEW_LEASES = CATALOGUE.gauge(
    "guardline_review_leases",
    "items",
    "Review items that a person has on lease. Only `guardline worker review` has this metric.",
    "0 while items wait: nobody reviews.",
)
REVIEW_OLDEST_SECONDS = CATALOGUE.gauge(
    "guardline_review_oldest_seconds",
    "seconds",
    "How long the oldest waiting review item waits. Only `guardline worker review` has this metric.",
    "Rising without end: items of a tenant or a language reach nobody.",
)
REVIEW_ITEMS = CATALOGUE.gauge(
    "guardline_review_items",
    "items",
    "All review items in memory, decided and closed ones included. Only `guardline worker review` has this metric.",
    "Rising without end: review.keep_history_hours is too long for the memory of the worker.",
)

# Streams: only `guardline worker streams` has these.

STREAM_RECORDS = CATALOGUE.counter(
    "guardline_stream_records_total",
    "records",
    "Records of streams by the outcome of their verdicts: see docs/streams.md#outcomes. Only `guardline worker "
    "streams` has this metric.",
    "`unavailable` rising: the engine fails or is too slow. `out_of_order`, `unknown_stream` or `refused` rising: a "
    "producer breaks the contract. `expired` rising: producers do not close their streams.",
    Label(
        "outcome",
        (
            "opened",
            "judged",
            "waiting",
            "cut",
            "after_cut",
            "closed",
            "unavailable",
            "repeated",
            "out_of_order",
            "unknown_stream",
            "expired",
            "too_long",
            "refused",
        ),
    ),
)
STREAM_CUTS = CATALOGUE.counter(
    "guardline_stream_cuts_total",
    "streams",
    "Streams that were cut, by the reason of the intervention. Only `guardline worker streams` has this metric.",
    "A rising share of the streams: the content changed, or a policy did. `unavailable`: the engine fails.",
    Label("reason", ("prompt", "unsafe", "controversial", "mean", "unavailable")),
)
STREAM_TOKENS = CATALOGUE.counter(
    "guardline_stream_tokens_total",
    "tokens",
    "Tokens of answers that were judged, without those that a new owner judged again. Only `guardline worker streams` "
    "has this metric.",
    "Rising: more answers, or longer ones.",
)
STREAM_JUDGE_SECONDS = CATALOGUE.histogram(
    "guardline_stream_judge_seconds",
    "seconds",
    "From the beginning of the work on a record of a stream to its judgement, with the wait for a session of the "
    "engine. Only `guardline worker streams` has this metric.",
    "Rising: the engine is overloaded, or more streams are written at a time than `streams.max_sessions`.",
    SECONDS,
)
STREAMS_OPEN = CATALOGUE.gauge(
    "guardline_streams_open",
    "streams",
    "Streams of this worker's partitions that are neither closed nor expired, those that were cut included. Only "
    "`guardline worker streams` has this metric.",
    "Rising without end: producers do not close their streams. At `streams.max_open`: new streams are not judged.",
)
STREAM_TAKEOVERS = CATALOGUE.counter(
    "guardline_stream_takeovers_total",
    "partitions",
    "Partitions with open streams that this worker has taken over. Only `guardline worker streams` has this metric.",
    "Rising: workers start and stop, or are killed.",
)
STREAMS_REPLAYED = CATALOGUE.counter(
    "guardline_stream_replayed_records_total",
    "records",
    "Records of open streams that this worker has read again, after it took over their partitions. Only `guardline "
    "worker streams` has this metric.",
    "Rising, while no workers start or stop: the group moves partitions again and again.",
)

# Deliveries to endpoints: only `guardline worker actions` has these.

ENDPOINT = Label("endpoint", bounded_by="the names in `actions.endpoints`")

DELIVERIES = CATALOGUE.counter(
    "guardline_deliveries_total",
    "deliveries",
    "Deliveries of an actions worker that have ended, by endpoint. `delivered`: the endpoint accepted it; "
    "`forgotten`: its author was forgotten before. All others are in the endpoint's topic of dead letters: `refused` "
    "by its status; `expired` after all attempts; `gone`, because the endpoint had answered 410.",
    "Rising for `refused`, `expired` or `gone`: the receiver does not get these verdicts; the dead letters say why.",
    ENDPOINT,
    Label("outcome", bounded_by="`delivered`, `forgotten`, `refused`, `expired`, `gone`"),
)
ATTEMPTS = CATALOGUE.counter(
    "guardline_delivery_attempts_total",
    "attempts",
    "Attempts of an actions worker to make a delivery, by endpoint and by what the answer means.",
    "A rising share of `failed` or `refused`: the endpoint does not work, or refuses what it gets.",
    ENDPOINT,
    Label("result", bounded_by="`accepted`, `failed`, `refused`, `gone`"),
)
WAITING = CATALOGUE.gauge(
    "guardline_deliveries_waiting",
    "deliveries",
    "Deliveries of an actions worker that have not ended, by endpoint. Above `actions.max_waiting` the worker reads "
    "slowly; the rest of the backlog is in Kafka.",
    "Above `actions.max_waiting`: the endpoint is down, or slower than the verdicts.",
    ENDPOINT,
)
OLDEST_DELIVERY_SECONDS = CATALOGUE.gauge(
    "guardline_oldest_delivery_seconds",
    "seconds",
    "Age of the oldest delivery of an actions worker that has not ended, by endpoint, from Kafka's timestamp.",
    "Rising: a delivery fails again and again, or the endpoint is down.",
    ENDPOINT,
)
BREAKER_OPEN = CATALOGUE.gauge(
    "guardline_endpoint_breaker_open",
    "0 or 1",
    "1 while an actions worker does not call the endpoint, besides a probe every 30 seconds or more often.",
    "1: the endpoint fails. Its deliveries wait, and none is lost.",
    ENDPOINT,
)
ENDPOINT_GONE = CATALOGUE.gauge(
    "guardline_endpoint_gone",
    "0 or 1",
    "1 after the endpoint has answered 410 Gone: its deliveries become dead letters until the worker starts again.",
    "1: remove the endpoint from the settings, or correct its `url` and restart the worker.",
    ENDPOINT,
)
CALL_SECONDS = CATALOGUE.histogram(
    "guardline_endpoint_call_seconds",
    "seconds",
    "Duration of an actions worker's call to the endpoint, until its answer or its failure.",
    "Rising: the endpoint is slow. At `timeout_s`: it does not answer.",
    SECONDS,
    ENDPOINT,
)

# The gateway.

ROUTE = Label("route", bounded_by="the paths of schemas/gateway-openapi.yaml, and `other`")

GATEWAY_REQUESTS = CATALOGUE.counter(
    "guardline_gateway_requests_total",
    "requests",
    "Requests to the gateway that were answered, or whose client went away. Only the gateway counts them.",
    "Rising with a status of 500 and above: the engine or the model server fails, or the gateway ends.",
    ROUTE,
    Label("status", bounded_by="the statuses of schemas/gateway-openapi.yaml, 404, 405 and 500"),
)
GATEWAY_SECONDS = CATALOGUE.histogram(
    "guardline_gateway_request_seconds",
    "seconds",
    "From the head of a request to the end of its answer, streams included. Only the gateway measures it.",
    "Rising: the engine or the model server is slow, or answers are longer.",
    LATENCIES,
    ROUTE,
)
GATEWAY_LIMITED = CATALOGUE.counter(
    "guardline_gateway_limited_total",
    "requests",
    "Requests that got 429, by the limit of their client. Only the gateway counts them.",
    "Rising: a client sends more than its limit allows.",
    Label("limit", ("per_minute", "concurrent")),
)
GATEWAY_IN_FLIGHT = CATALOGUE.gauge(
    "guardline_gateway_in_flight",
    "requests",
    "Requests in flight, streams included. Only the gateway has them.",
    "Rising: more clients, or slower answers.",
)

# The aggregates worker.

VERDICTS_READ = CATALOGUE.counter(
    "guardline_aggregates_verdicts_total",
    "verdicts",
    "Verdicts that an aggregates worker has read and handed to the rows that count them.",
    "Falling, while the lag rises: the worker does not keep up.",
)
VERDICTS_SKIPPED = CATALOGUE.counter(
    "guardline_aggregates_skipped_total",
    "records",
    "Records of the verdict topic that are counted nowhere: duplicates, records without a value, and records that are "
    "no verdicts.",
    "`junk` rising: something other than a worker writes to the verdict topic.",
    Label("reason", ("duplicate", "tombstone", "junk")),
)
ROW_UPDATES = CATALOGUE.counter(
    "guardline_aggregates_row_updates_total",
    "updates",
    "Verdicts by what became of them in a row of an aggregates worker; each verdict has several rows. `repeated`: it "
    "was counted before. "
    "`refused`: it is the first of its row, and the worker holds `aggregates.max_rows` rows.",
    "`repeated` rising: workers are killed, or the group moves partitions. `refused`: raise `aggregates.max_rows`.",
    Label("result", ("counted", "repeated", "refused")),
)
SIGNALS = CATALOGUE.counter(
    "guardline_signals_total",
    "signals",
    "Signals that an aggregates worker wrote, with those written again after a crash.",
    "Rising: see docs/aggregates.md for what each kind means.",
    Label("kind", ("author_strikes", "harm_rate", "similar_content", "thread")),
    Label("state", ("raised", "cleared")),
)
ROWS = CATALOGUE.gauge(
    "guardline_aggregates_rows",
    "rows",
    "Rows of an aggregates worker's table: authors, tenants, threads, contents.",
    "At `aggregates.max_rows`: new authors and threads are not counted.",
)
IN_FORCE = CATALOGUE.gauge(
    "guardline_aggregates_raised_rows",
    "rows",
    "Rows of an aggregates worker with at least one signal that is raised and not cleared.",
    "Rising: more authors, tenants, contents or threads are over a threshold.",
)

# The gateway's proxy.

GATEWAY_STREAMS = CATALOGUE.gauge(
    "guardline_gateway_open_streams",
    "streams",
    "Streamed answers that a gateway passes on now.",
    "Rising, while the requests do not: the model server or the clients are slow.",
)
GATEWAY_CUTS = CATALOGUE.counter(
    "guardline_gateway_cuts_total",
    "choices",
    "Answers that a gateway cut, and prompts that it refused (`prompt`), by the reason.",
    "Rising: the users or the model changed. `unavailable`: the guard fails.",
    Label("reason", ("prompt", "unsafe", "controversial", "mean", "unavailable")),
)
GATEWAY_PUBLISHED = CATALOGUE.counter(
    "guardline_gateway_published_total",
    "records",
    "Verdicts and interventions of a gateway with `gateway.publish`, by what became of them. `dropped`: 10,000 others "
    "waited, or the gateway ended.",
    "`refused` or `dropped` rising: Kafka is down or too slow, and these records are lost.",
    Label("result", ("written", "refused", "dropped")),
)
GATEWAY_UNPUBLISHED = CATALOGUE.gauge(
    "guardline_gateway_unpublished_records",
    "records",
    "Verdicts and interventions of a gateway with `gateway.publish` that wait for Kafka, at most 10,000.",
    "Rising: Kafka is down or too slow. Records that have waited for 30 s are lost.",
)
GATEWAY_FIRST_TEXT = CATALOGUE.histogram(
    "guardline_gateway_first_text_added_seconds",
    "seconds",
    "How much later the first text of a streamed answer reaches its client because of the gateway: the judgement of "
    "the prompt, and the time from the first text of the model server to the first that is shown.",
    "Rising: the guard is slow, or a policy holds more back.",
    SECONDS,
)
