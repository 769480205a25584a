"""The alerts, and the Prometheus rules that are made from them.

An alert is about a symptom that somebody has to act on. `critical` wakes a person; `warning` waits for working hours.
Each has a page in docs/runbooks. Causes without a symptom are on the dashboard.

Every selector of the rules file has `SELECTOR`, and the file has this text nowhere else. The Helm chart depends on it:
for each worker it renders the group once, with `SELECTOR` replaced by the namespace and the job of that worker, and
with another name of the group.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any, Literal, NamedTuple

import yaml

from infra.observability.dashboard import selecting

ROOT = Path(__file__).parents[2]

MADE_BY = "# `make generated` writes this file from infra/observability/alerts.py.\n"

SELECTOR = 'job="guardline"'
"""The matcher of the job, as the compose file and docs/metrics.md name it."""

GROUP = "by (namespace, job)"
"""One alert for each deployment, however many workers it has."""

RUNNING = 'guardline_worker_state{guardline_worker_state="running"}'


class Alert(NamedTuple):
    """One alert.

    `expression` is PromQL, and `hold` how long it has to be true. `page` is a file in docs/runbooks, without `.md`.
    """

    name: str
    severity: Literal["critical", "warning"]
    expression: str
    hold: str
    summary: str
    description: str
    page: str


def _has_risen(counter: str) -> str:
    """Return the condition that a counter rose in the last 15 minutes, or that it is not 0 and its process is new.

    `increase` alone sees nothing of what a worker counted before its first scrape.
    """
    is_new = "on (namespace, job, instance) time() - process_start_time_seconds < 900"
    return f"increase({counter}[15m]) > 0 or ({counter} > 0 and {is_new})"


ALERTS = (
    Alert(
        "GuardlineTargetMissed",
        "critical",
        f"-min {GROUP} (guardline_oldest_deadline_seconds) > 0",
        "2m",
        "Events wait for their verdict for longer than worker.target_s.",
        "The oldest event is {{ $value | humanizeDuration }} late.",
        "target-missed",
    ),
    Alert(
        "GuardlineNoWorker",
        "critical",
        # `absent` gives an alert the labels of its selector, so those of two workers stay two alerts.
        f"max {GROUP} ({RUNNING}) == 0 or max {GROUP} (absent({RUNNING}))",
        "2m",
        "No worker runs: no event gets a verdict.",
        "No worker that Prometheus scrapes is in the state running.",
        "no-worker",
    ),
    Alert(
        "GuardlineNoPartitions",
        "critical",
        f"sum {GROUP} (guardline_assigned_partitions) == 0 and max {GROUP} ({RUNNING}) == 1",
        "5m",
        "Workers run, but none has a partition: no event gets a verdict.",
        "The group has assigned no partition to any worker of {{ $labels.job }}.",
        "no-partitions",
    ),
    Alert(
        "GuardlineMessagesLost",
        "critical",
        _has_risen("guardline_offsets_deleted_unread_total"),
        "0m",
        "Records were deleted before a worker read them: these messages get no verdict.",
        "{{ $labels.instance }} found that offsets of an input topic were deleted unread; its log names them.",
        "messages-lost",
    ),
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
    Alert(
        "GuardlineWorkerRestarts",
        "warning",
        "changes(process_start_time_seconds[15m]) > 2",
        "0m",
        "A worker ends and starts again and again.",
        "{{ $labels.instance }} started {{ $value }} times in 15 minutes.",
        "worker-restarts",
    ),
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
    Alert(
        "GuardlineRedisDown",
        "warning",
        # Of workers that run: one that starts may still wait for Kafka, and has not asked Redis yet.
        f"min {GROUP} (guardline_redis_up and on (namespace, job, instance) {RUNNING} == 1) == 0",
        "5m",
        "A worker does not reach Redis: repeats are judged again, and changes of policies have no effect.",
        "At least one worker has had no answer from Redis for 5 minutes.",
        "redis-down",
    ),
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


def rules() -> str:
    """Return the file of Prometheus rules."""
    return MADE_BY + yaml.safe_dump(
        {"groups": [{"name": "guardline", "rules": [_rule(alert) for alert in ALERTS]}]},
        sort_keys=False,
        allow_unicode=True,
        width=1_000,
    )


def _rule(alert: Alert) -> dict[str, Any]:
    return {
        "alert": alert.name,
        "expr": selecting(alert.expression, SELECTOR),
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
