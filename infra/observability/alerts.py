"""The alerts, and the Prometheus rules that are made from them.

An alert is about a symptom that somebody has to act on. `critical` wakes a person; `warning` waits for working hours.
Each has a page in docs/runbooks. Causes without a symptom are on the dashboard.

The rules of each kind of worker are a group. Every selector in a group has the group's name as its job, and the file
has this text nowhere else. The Helm chart depends on it: for each worker it renders the group of its kind, with the
matcher of the job replaced by the namespace and the job of that worker, and with another name of the group.

The chart has a file of its own, because it knows which workers there must be. The other file does not: see
`_NONE_RUNS`.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any, Literal, NamedTuple

import yaml

from infra.observability.dashboard import selecting

ROOT = Path(__file__).parents[2]

MADE_BY = "# `make generated` writes this file from infra/observability/alerts.py.\n"

GROUP = "by (namespace, job)"
"""One alert for each deployment, however many workers it has."""

RUNNING = 'guardline_worker_state{guardline_worker_state="running"}'


class Alert(NamedTuple):
    """One alert.

    `expression` is PromQL, and `hold` how long it has to be true. `page` is a file in docs/runbooks, without `.md`.
    `of_expected`: the expression where a worker of this kind must be; None for the same one.
    """

    name: str
    severity: Literal["critical", "warning"]
    expression: str
    hold: str
    summary: str
    description: str
    page: str
    of_expected: str | None = None


def _has_risen(counter: str) -> str:
    """Return the condition that a counter rose in the last 15 minutes, or that it is not 0 and its process is new.

    `increase` alone sees nothing of what a worker counted before its first scrape.
    """
    is_new = "on (namespace, job, instance) time() - process_start_time_seconds < 900"
    return f"increase({counter}[15m]) > 0 or ({counter} > 0 and {is_new})"


# Alerts that several kinds of workers have.

MESSAGES_LOST = Alert(
    "GuardlineMessagesLost",
    "critical",
    _has_risen("guardline_offsets_deleted_unread_total"),
    "0m",
    "Records were deleted before a worker read them: these messages get no verdict.",
    "{{ $labels.instance }} found that offsets of an input topic were deleted unread; its log names them.",
    "messages-lost",
)

WORKER_RESTARTS = Alert(
    "GuardlineWorkerRestarts",
    "warning",
    "changes(process_start_time_seconds[15m]) > 2",
    "0m",
    "A worker ends and starts again and again.",
    "{{ $labels.instance }} started {{ $value }} times in 15 minutes.",
    "worker-restarts",
)

REDIS_DOWN = Alert(
    "GuardlineRedisDown",
    "warning",
    # A worker that starts may still wait for Kafka. Until it has asked Redis, its value is not a number.
    f"min {GROUP} (guardline_redis_up) == 0",
    "5m",
    "A worker does not reach Redis: repeats are judged again, and changes of policies have no effect.",
    "At least one worker has had no answer from Redis for 5 minutes.",
    "redis-down",
)

# `absent` gives an alert the labels of its selector, so those of two workers stay two alerts.
_NONE_RUNS_OF_EXPECTED = f"max {GROUP} ({RUNNING}) == 0 or max {GROUP} (absent({RUNNING}))"
"""No worker of a kind runs, whether or not there has been one."""

_NONE_RUNS = (
    f"max {GROUP} ({RUNNING}) == 0 "
    f"or max {GROUP} (last_over_time({RUNNING}[1d])) unless max {GROUP} (last_over_time({RUNNING}[5m]))"
)
"""No worker of a kind runs, although Prometheus saw one in the last day: not every deployment has every kind."""

NO_WORKER = Alert(
    "GuardlineNoWorker",
    "critical",
    _NONE_RUNS_OF_EXPECTED,
    "2m",
    "No worker runs: no event gets a verdict.",
    "No worker that Prometheus scrapes is in the state running.",
    "no-worker",
)

MODERATION = (
    Alert(
        "GuardlineTargetMissed",
        "critical",
        f"-min {GROUP} (guardline_oldest_deadline_seconds) > 0",
        "2m",
        "Events wait for their verdict for longer than worker.target_s.",
        "The oldest event is {{ $value | humanizeDuration }} late.",
        "target-missed",
    ),
    NO_WORKER,
    Alert(
        "GuardlineNoPartitions",
        "critical",
        f"sum {GROUP} (guardline_assigned_partitions) == 0 and max {GROUP} ({RUNNING}) == 1",
        "5m",
        "Workers run, but none has a partition: no event gets a verdict.",
        "The group has assigned no partition to any worker of {{ $labels.job }}.",
        "no-partitions",
    ),
    MESSAGES_LOST,
    Alert(
        "GuardlineEngineUnavailable",
        "critical",
        f"sum {GROUP} (rate(guardline_unavailable_total[5m])) > 0.05 * "
        f"sum {GROUP} (rate(guardline_decisions_total[5m]))",
        "5m",
        "More than 5 % of the verdicts have no assessment: the policies' on_unavailable decides.",
        "{{ $value | humanize }} verdicts per second have no assessment.",
        "engine-unavailable",
    ),
    WORKER_RESTARTS,
    Alert(
        "GuardlineDeadLetters",
        "warning",
        f"sum {GROUP} (rate(guardline_dead_letters_total[5m])) > 0.01 * "
        f"sum {GROUP} (rate(guardline_records_committed_total[5m]))",
        "10m",
        "More than 1 % of the records become dead letters: these messages get no verdict.",
        "{{ $value | humanize }} records per second become dead letters.",
        "dead-letters",
    ),
    Alert(
        "GuardlineUnreadableTopics",
        "warning",
        f"max {GROUP} (guardline_unreadable_topics) > 0",
        "10m",
        "Topics that match a pattern of topics.inputs are left out: their messages get no verdict.",
        "Left out, because the workers' user may not read them: {{ $value }}. The log names them.",
        "unreadable-topics",
    ),
    REDIS_DOWN,
    Alert(
        "GuardlinePolicyRefused",
        "warning",
        _has_risen("guardline_policies_refused_total"),
        "0m",
        "A policy that was set is not in force.",
        "{{ $labels.instance }} refused a policy; its log has the reason.",
        "policy-refused",
    ),
)


# More than five minutes of work waits. Markers of transactions alone are a small lag.
_MUCH_WAITS = (
    f"(sum {GROUP} (guardline_lag_records) > 100 and sum {GROUP} (guardline_lag_records) > "
    f"300 * sum {GROUP} (rate(guardline_aggregates_verdicts_total[5m])))"
)

AGGREGATES = (
    Alert(
        "GuardlineAggregatesLate",
        "warning",
        f"{_MUCH_WAITS} or {_NONE_RUNS}",
        "10m",
        "Verdicts are counted late or not at all: strikes and signals are old.",
        "The aggregates worker does not run, or more than five minutes of verdicts wait for it.",
        "aggregates-late",
        f"{_MUCH_WAITS} or {_NONE_RUNS_OF_EXPECTED}",
    ),
    WORKER_RESTARTS,
    REDIS_DOWN._replace(
        summary="The aggregates worker does not reach Redis: it writes no strikes, and sees no changes of policies."
    ),
)

REVIEW = (
    Alert(
        "GuardlineReviewNotActive",
        "critical",
        _NONE_RUNS,
        "5m",
        "No review worker is active: nobody can review, and no decision is published.",
        "No review worker that Prometheus scrapes is in the state running.",
        "review-not-active",
        _NONE_RUNS_OF_EXPECTED,
    ),
    Alert(
        "GuardlineReviewOverdue",
        "warning",
        f'max {GROUP} (guardline_review_waiting{{due="overdue"}}) > 0',
        "15m",
        "Review items wait for longer than their tenant's service level allows.",
        "{{ $value }} items have missed their deadline.",
        "review-overdue",
    ),
    WORKER_RESTARTS,
    MESSAGES_LOST,
)

ACTIONS = (
    NO_WORKER._replace(
        expression=_NONE_RUNS,
        summary="No worker calls the endpoints: no webhook and no statement is sent.",
        of_expected=_NONE_RUNS_OF_EXPECTED,
    ),
    Alert(
        "GuardlineEndpointFails",
        "warning",
        "max by (namespace, job, endpoint) (guardline_endpoint_breaker_open) == 1 "
        "or max by (namespace, job, endpoint) (guardline_endpoint_gone) == 1",
        "10m",
        "An endpoint fails: its deliveries wait, or are given up.",
        "The endpoint {{ $labels.endpoint }} has not worked for 10 minutes.",
        "endpoint-fails",
    ),
    Alert(
        "GuardlineDeliveriesLate",
        "warning",
        "max by (namespace, job, endpoint) (guardline_oldest_delivery_seconds) > 900",
        "10m",
        "Deliveries to an endpoint are late: it fails in part, is slow, or asks the worker to wait.",
        "The oldest delivery to the endpoint {{ $labels.endpoint }} has waited for {{ $value | humanizeDuration }}.",
        "deliveries-late",
    ),
    Alert(
        "GuardlineUndelivered",
        "warning",
        _has_risen('guardline_deliveries_total{outcome!~"delivered|forgotten"}'),
        "0m",
        "Deliveries were given up: an endpoint does not know of these verdicts or signals.",
        "Deliveries to the endpoint {{ $labels.endpoint }} became dead letters ({{ $labels.outcome }}).",
        "undelivered",
    ),
    WORKER_RESTARTS,
    MESSAGES_LOST,
)

STREAMS = (
    NO_WORKER._replace(
        expression=_NONE_RUNS,
        summary="No worker judges streams: answers wait, or are shown without a judgement.",
        of_expected=_NONE_RUNS_OF_EXPECTED,
    ),
    Alert(
        "GuardlineStreamsUnavailable",
        "critical",
        f'sum {GROUP} (rate(guardline_stream_records_total{{outcome="unavailable"}}[5m])) > 0.05 * '
        f"sum {GROUP} (rate(guardline_stream_records_total[5m]))",
        "5m",
        "More than 5 % of the records of streams are not judged: the policies' on_unavailable decides.",
        "{{ $value | humanize }} records of streams per second are not judged.",
        "streams-unavailable",
    ),
    WORKER_RESTARTS,
    MESSAGES_LOST,
)

GATEWAY = (
    NO_WORKER._replace(
        expression=_NONE_RUNS,
        summary="No gateway runs: its clients get no answer.",
        of_expected=_NONE_RUNS_OF_EXPECTED,
    ),
    Alert(
        "GuardlineGatewayFails",
        "critical",
        f'sum {GROUP} (rate(guardline_gateway_requests_total{{status=~"5.."}}[5m])) > 0.05 * '
        f"sum {GROUP} (rate(guardline_gateway_requests_total[5m]))",
        "5m",
        "More than 5 % of the requests to the gateway fail.",
        "{{ $value | humanize }} requests per second get a status of 500 and above.",
        "gateway-fails",
    ),
    WORKER_RESTARTS,
    REDIS_DOWN,
)

GROUPS = {
    "guardline": MODERATION,
    "guardline-aggregates": AGGREGATES,
    "guardline-review": REVIEW,
    "guardline-actions": ACTIONS,
    "guardline-streams": STREAMS,
    "guardline-gateway": GATEWAY,
}
"""The alerts of each kind of worker, by the job that the compose file and docs/metrics.md give it."""

ALERTS = tuple(
    next(alert for group in GROUPS.values() for alert in group if alert.name == name)
    for name in dict.fromkeys(alert.name for group in GROUPS.values() for alert in group)
)
"""Every alert once, with the texts of its first group."""


def rules(*, is_every_kind_expected: bool = False) -> str:
    """Return the file of Prometheus rules.

    `is_every_kind_expected`: the alerts also fire for a kind of which Prometheus never saw a worker.
    """
    groups = [
        {"name": job, "rules": [_rule(alert, job, is_expected=is_every_kind_expected) for alert in group]}
        for job, group in GROUPS.items()
    ]
    return MADE_BY + yaml.safe_dump({"groups": groups}, sort_keys=False, allow_unicode=True, width=1_000)


def _rule(alert: Alert, job: str, *, is_expected: bool) -> dict[str, Any]:
    expression = alert.of_expected if is_expected and alert.of_expected is not None else alert.expression
    return {
        "alert": alert.name,
        "expr": selecting(expression, f'job="{job}"'),
        "for": alert.hold,
        "labels": {"severity": alert.severity},
        "annotations": {
            "summary": alert.summary,
            "description": alert.description,
            "runbook_url": f"{_documentation()}/runbooks/{alert.page}.html",
        },
    }


def _documentation() -> str:
    """Return the address of the docs, from pyproject.toml."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return str(project["urls"]["Documentation"])
