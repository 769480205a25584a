"""The panels of the dashboard, in rows. A test checks that every metric of the catalogue is in one of them."""

from __future__ import annotations

from typing import NamedTuple


class Panel(NamedTuple):
    """A plot, or a number if it has `colours`.

    `queries` are pairs of PromQL and legend; `RATE` is the window of a rate. `unit` is one of Grafana's. `colours` are
    pairs of the least value and the colour from there on.
    """

    title: str
    unit: str
    queries: tuple[tuple[str, str], ...]
    colours: Colours = ()


Colours = tuple[tuple[float | None, str], ...]
PLAIN: Colours = ((None, "blue"),)


def _good_from(value: float) -> Colours:
    return (None, "red"), (value, "green")


def _bad_from(value: float) -> Colours:
    return (None, "green"), (value, "red")


RATE = "$__rate_interval"


def _rate(counter: str, by: str = "") -> str:
    return f"sum{by and f' by ({by}) '}(rate({counter}[{RATE}]))"


def _share(part: str, whole: str) -> str:
    return f"{_rate(part)} / {_rate(whole)}"


def _quantiles(histogram: str) -> tuple[tuple[str, str], ...]:
    return tuple(
        (f"histogram_quantile({quantile}, sum by (le) (rate({histogram}_bucket[{RATE}])))", name)
        for quantile, name in ((0.5, "median"), (0.95, "95 %"), (0.99, "99 %"))
    )


def _each(gauge: str) -> tuple[tuple[str, str], ...]:
    return ((gauge, "{{instance}}"),)


ROWS: dict[str, tuple[Panel, ...]] = {
    "At a glance": (
        Panel(
            "Time until the oldest event misses its target",
            "s",
            (("min(guardline_oldest_deadline_seconds)", ""),),
            _good_from(0),
        ),
        Panel("Lag", "short", (("sum(guardline_lag_records)", ""),), PLAIN),
        Panel("Verdicts a second", "ops", ((_rate("guardline_decisions_total"), ""),), PLAIN),
        Panel(
            "Workers that run",
            "short",
            (('sum(guardline_worker_state{guardline_worker_state="running"})', ""),),
            _good_from(1),
        ),
        Panel(
            "Verdicts without an assessment",
            "percentunit",
            ((_share("guardline_unavailable_total", "guardline_decisions_total"), ""),),
            _bad_from(0.05),
        ),
        Panel("Redis", "bool_on_off", (("min(guardline_redis_up)", ""),), _good_from(1)),
    ),
    "Delay": (
        Panel("Time until the oldest event misses its target", "s", _each("guardline_oldest_deadline_seconds")),
        Panel("Lag in records", "short", _each("guardline_lag_records")),
        Panel("Lag in seconds", "s", _each("guardline_lag_seconds")),
        Panel("From the time of the event to the commit", "s", _quantiles("guardline_event_to_commit_seconds")),
        Panel("From intake to the commit", "s", _quantiles("guardline_intake_to_commit_seconds")),
        Panel("Oldest record in a worker", "s", _each("guardline_oldest_uncommitted_seconds")),
    ),
    "Flow": (
        Panel("Records read, by topic", "ops", ((_rate("guardline_records_received_total", "topic"), "{{topic}}"),)),
        Panel("Records committed", "ops", ((_rate("guardline_records_committed_total", "instance"), "{{instance}}"),)),
        Panel("Records in memory", "short", _each("guardline_uncommitted_records")),
        Panel(
            "Share of the time in which partitions are paused",
            "percentunit",
            ((f"rate(guardline_paused_seconds_total[{RATE}])", "{{instance}}"),),
        ),
        Panel(
            "Pauses",
            "short",
            (
                (f"sum(increase(guardline_pauses_total[{RATE}]))", "pauses"),
                ("sum(guardline_intake_paused)", "workers that pause"),
            ),
        ),
        Panel("Partitions", "short", _each("guardline_assigned_partitions")),
        Panel("Topics that may not be read", "short", _each("guardline_unreadable_topics")),
    ),
    "Verdicts": (
        Panel("Decisions", "ops", ((_rate("guardline_decisions_total", "decision"), "{{decision}}"),)),
        Panel(
            "Repeats",
            "percentunit",
            (
                (_share("guardline_duplicates_total", "guardline_decisions_total"), "the same event"),
                (_share("guardline_assessments_reused_total", "guardline_decisions_total"), "assessment from Redis"),
                (_share("guardline_joined_total", "guardline_decisions_total"), "shared in flight"),
            ),
        ),
        Panel("Without an assessment", "ops", ((_rate("guardline_unavailable_total"), "verdicts"),)),
        Panel("Tenants without a policy", "ops", ((_rate("guardline_unknown_tenants_total", "policy"), "{{policy}}"),)),
    ),
    "Input": (
        Panel("Dead letters", "ops", ((_rate("guardline_dead_letters_total", "reason") + " > 0", "{{reason}}"),)),
        Panel("Skipped records", "ops", ((_rate("guardline_skipped_total", "reason"), "{{reason}}"),)),
        Panel("Languages", "ops", ((_rate("guardline_languages_total", "source"), "{{source}}"),)),
        Panel("Ignored fields", "ops", ((_rate("guardline_ignored_fields_total", "field"), "{{field}}"),)),
        Panel(
            "Shortened and lost",
            "ops",
            (
                (_rate("guardline_shortened_total"), "outputs shortened"),
                (_rate("guardline_offsets_deleted_unread_total"), "offsets deleted unread"),
            ),
        ),
    ),
    "Engine": (
        Panel("Call to the guard", "s", _quantiles("guardline_engine_call_seconds")),
        Panel("From a closed micro-batch to its verdicts", "s", _quantiles("guardline_batch_seconds")),
        Panel("Wait for a micro-batch", "s", _quantiles("guardline_queue_seconds")),
        Panel("Events in a micro-batch", "short", _quantiles("guardline_batch_events")),
        Panel("Prompts a second", "ops", ((_rate("guardline_engine_prompts_total", "instance"), "{{instance}}"),)),
        Panel("Tokens a second", "ops", ((_rate("guardline_engine_tokens_total", "instance"), "{{instance}}"),)),
        Panel("Open sessions of streams", "short", _each("guardline_stream_engine_sessions")),
        Panel(
            "Tokens of streams", "ops", ((_rate("guardline_stream_engine_tokens_total", "instance"), "{{instance}}"),)
        ),
        Panel("Step of the stream engine", "s", _quantiles("guardline_stream_engine_step_seconds")),
        Panel("Failed attempts", "ops", ((_rate("guardline_failed_attempts_total", "at"), "{{at}}"),)),
        Panel("Open circuits", "short", (("sum by (circuit) (guardline_open_circuits)", "{{circuit}}"),)),
    ),
    "Kafka": (
        Panel("Commit", "s", _quantiles("guardline_commit_seconds")),
        Panel("Transactions", "ops", ((_rate("guardline_transactions_total", "result"), "{{result}}"),)),
        Panel(
            "Rebalances",
            "short",
            ((f"sum by (kind) (increase(guardline_rebalances_total[{RATE}]))", "{{kind}}"),),
        ),
        Panel(
            "Repaired",
            "short",
            (
                (f"sum(increase(guardline_producers_replaced_total[{RATE}]))", "producers replaced"),
                (f"sum(increase(guardline_stale_completions_total[{RATE}]))", "stale results"),
            ),
        ),
    ),
    "Redis and policies": (
        Panel("Redis", "bool_on_off", _each("guardline_redis_up")),
        Panel("Verdicts not stored", "ops", ((_rate("guardline_forgotten_total"), "verdicts"),)),
        Panel(
            "Policies",
            "short",
            (
                ("guardline_policies", "{{instance}}"),
                (f"sum(increase(guardline_policies_refused_total[{RATE}]))", "refused"),
            ),
        ),
        Panel("Newest change of a policy", "none", _each("guardline_policy_change")),
        Panel("Look-ups of strikes", "ops", ((_rate("guardline_strikes_looked_up_total", "result"), "{{result}}"),)),
    ),
    "Review": (
        Panel("Waiting items", "short", (("sum by (due) (guardline_review_waiting)", "{{due}}"),)),
        Panel("Oldest waiting item", "s", (("max(guardline_review_oldest_seconds)", ""),)),
        Panel("Decisions", "ops", ((_rate("guardline_review_decisions_total", "decision"), "{{decision}}"),)),
        Panel(
            "Commands", "ops", ((_rate("guardline_review_commands_total", "kind, outcome"), "{{kind}} {{outcome}}"),)
        ),
        Panel(
            "Items in memory",
            "short",
            (("max(guardline_review_items)", "all"), ("max(guardline_review_leases)", "on lease")),
        ),
    ),
    "Aggregates": (
        Panel("Counted verdicts", "ops", ((_rate("guardline_aggregates_verdicts_total"), "verdicts"),)),
        Panel("Updates of rows", "ops", ((_rate("guardline_aggregates_row_updates_total", "result"), "{{result}}"),)),
        Panel("Records not counted", "ops", ((_rate("guardline_aggregates_skipped_total", "reason"), "{{reason}}"),)),
        Panel("Signals", "ops", ((_rate("guardline_signals_total", "kind, state"), "{{kind}} {{state}}"),)),
        Panel(
            "Rows",
            "short",
            (("sum(guardline_aggregates_rows)", "all"), ("sum(guardline_aggregates_raised_rows)", "raised")),
        ),
    ),
    "Actions": (
        Panel(
            "Deliveries",
            "ops",
            ((_rate("guardline_deliveries_total", "endpoint, outcome"), "{{endpoint}} {{outcome}}"),),
        ),
        Panel(
            "Attempts",
            "ops",
            ((_rate("guardline_delivery_attempts_total", "endpoint, result"), "{{endpoint}} {{result}}"),),
        ),
        Panel("Waiting deliveries", "short", (("sum by (endpoint) (guardline_deliveries_waiting)", "{{endpoint}}"),)),
        Panel("Oldest delivery", "s", (("max by (endpoint) (guardline_oldest_delivery_seconds)", "{{endpoint}}"),)),
        Panel("Call to an endpoint", "s", _quantiles("guardline_endpoint_call_seconds")),
        Panel(
            "Endpoints that fail",
            "short",
            (
                ("max by (endpoint) (guardline_endpoint_breaker_open)", "{{endpoint}} is not called"),
                ("max by (endpoint) (guardline_endpoint_gone)", "{{endpoint}} is gone"),
            ),
        ),
    ),
    "Streams": (
        Panel("Records by outcome", "ops", ((_rate("guardline_stream_records_total", "outcome"), "{{outcome}}"),)),
        Panel("Cut streams", "ops", ((_rate("guardline_stream_cuts_total", "reason"), "{{reason}}"),)),
        Panel("Judged tokens", "ops", ((_rate("guardline_stream_tokens_total"), "tokens"),)),
        Panel("Judgement of a record", "s", _quantiles("guardline_stream_judge_seconds")),
        Panel("Open streams of workers", "short", _each("guardline_streams_open")),
        Panel(
            "Takeovers",
            "ops",
            (
                (_rate("guardline_stream_takeovers_total"), "partitions"),
                (_rate("guardline_stream_replayed_records_total"), "records read again"),
            ),
        ),
    ),
    "Gateway": (
        Panel(
            "Requests", "ops", ((_rate("guardline_gateway_requests_total", "route, status"), "{{route}} {{status}}"),)
        ),
        Panel("Request", "s", _quantiles("guardline_gateway_request_seconds")),
        Panel("Requests in flight", "short", _each("guardline_gateway_in_flight")),
        Panel("Over a limit", "ops", ((_rate("guardline_gateway_limited_total", "limit"), "{{limit}}"),)),
        Panel("Open streams", "short", _each("guardline_gateway_open_streams")),
        Panel("Cut answers and prompts", "ops", ((_rate("guardline_gateway_cuts_total", "reason"), "{{reason}}"),)),
        Panel("Published decisions", "ops", ((_rate("guardline_gateway_published_total", "result"), "{{result}}"),)),
        Panel("Decisions that wait for Kafka", "short", _each("guardline_gateway_unpublished_records")),
        Panel("Added before the first text", "s", _quantiles("guardline_gateway_first_text_added_seconds")),
    ),
    "Processes": (
        Panel("State", "none", (("guardline_worker_state == 1", "{{instance}} {{guardline_worker_state}}"),)),
        Panel("CPU", "percentunit", ((f"rate(process_cpu_seconds_total[{RATE}])", "{{instance}}"),)),
        Panel("Memory", "bytes", _each("process_resident_memory_bytes")),
    ),
}
