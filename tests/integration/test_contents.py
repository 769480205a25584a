"""Each part of an event reaches the prompt, the keys, the policy and the verdict."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._config import AlterConfigOpType, ConfigEntry, ConfigResource
from confluent_kafka.admin._resource import ResourceType

from tests.answers import answered
from tests.site import Process, Site, eventually
from workers.guard.guard import Request
from workers.guard.load import load_guard

TEXT = "How do I get rid of him without anybody noticing?"
EVENT = {"event_id": "e", "tenant_id": "acme", "surface": "chat", "text": TEXT}
MILD = [{"role": "user", "text": "There is a spider in my bathroom."}]
GRIM = [{"role": "user", "text": "I will kill my neighbour with a knife tonight."}]
ANSWERED = [*MILD, {"role": "assistant", "text": "There is a spider in my bathroom."}]
SPOKEN_TO = [{"role": "assistant", "text": "There is a spider in my bathroom."}]


def send(site: Site, *changes: dict[str, object]) -> list[dict[str, Any]]:
    """Send the event with each of the changes; return their verdicts."""
    site.produce([(b"k", json.dumps({**EVENT, **change}).encode()) for change in changes])
    outcome = site.check()
    return [outcome.by_position[position][0] for position in site.sent[-len(changes) :]]


def set_policy(site: Site, tenant: str, text: str) -> None:
    file = Path(site.folder.name) / "policy.yaml"
    file.write_text(text)
    site.command("policy", "set", tenant, file)


def requests() -> list[Request]:
    found = []
    for change in PROMPTS:
        context = change.get("context", [])
        turns = tuple((turn["role"], turn["text"]) for turn in context)
        found.append(Request(TEXT, change.get("role", "user"), turns))
    return found


PROMPTS: list[dict[str, Any]] = [
    {},
    {"role": "assistant"},
    {"context": MILD},
    {"context": GRIM},
    {"context": SPOKEN_TO},
    {"context": ANSWERED},
    {"context": MILD, "role": "assistant"},
]


def test_the_text_is_judged_with_its_role_and_its_context(site: Site) -> None:
    """All have the same text, and are sent at once and again: prompt and content key must contain every part."""

    async def expected() -> list[dict[str, Any]]:
        guard = load_guard(site.settings().guard)
        await guard.start()
        try:
            return [answered(await guard.assess([request]))[0] for request in requests()]
        finally:
            await guard.close()

    site.create_topics()
    worker = site.worker()
    wanted = asyncio.run(expected())
    assert len({json.dumps(assessment["scores"]) for assessment in wanted}) == len(PROMPTS), "no two read the same"
    assert [assessment["refusal"] is not None for assessment in wanted] == ["role" in prompt for prompt in PROMPTS]
    for time in ("first", "again"):
        verdicts = send(site, *({**prompt, "event_id": f"{time} {n}"} for n, prompt in enumerate(PROMPTS)))
        for verdict, assessment in zip(verdicts, wanted, strict=True):
            found = verdict["assessment"]
            assert found["scores"] == pytest.approx(assessment["scores"], abs=2e-3)
            assert (found["severity"], found["refusal"]) == (assessment["severity"], assessment["refusal"])
        await_commits(worker, len(PROMPTS))
    assert worker.metric("guardline_assessments_reused_total") == len(PROMPTS)


def await_commits(worker: Process, count: int) -> None:
    """Wait until the worker writes this many verdicts to Redis, so that the next event finds them."""
    eventually(lambda: worker.metric("guardline_records_committed_total") >= count, f"{count} are committed")


RULES = """
safe: allow
controversial: allow
unsafe: allow
rules:
  - {surface: comment, decision: block}
  - {role: assistant, decision: review}
  - {language: de, decision: block}
"""


def test_surface_role_and_language_reach_the_policy_and_the_verdict(site: Site) -> None:
    site.create_topics()
    set_policy(site, "acme", RULES)
    site.worker()
    changes: list[dict[str, object]] = [
        {"event_id": "plain"},
        {"event_id": "surface", "surface": "comment"},
        {"event_id": "role", "role": "assistant"},
        {"event_id": "language", "language": "de-AT"},
        {"event_id": "other language", "language": "en"},
    ]
    verdicts = send(site, *changes)
    assert [verdict["decision"] for verdict in verdicts] == ["allow", "block", "review", "block", "allow"]
    for verdict, change in zip(verdicts, changes, strict=True):
        event = {"role": "user", "language": None, **EVENT, **change}
        assert {name: verdict[name] for name in ("surface", "role", "language")} == {
            name: event[name] for name in ("surface", "role", "language")
        }


def test_an_event_is_the_same_only_with_all_its_parts(site: Site) -> None:
    site.create_topics()
    site.worker()
    (first,) = send(site, {})
    others: list[dict[str, object]] = [
        {"surface": "comment"},
        {"language": "en"},
        {"role": "assistant"},
        {"context": MILD},
        {"event_id": "f"},
        {"tenant_id": "other"},
        {"text": f"{TEXT} "},
    ]
    assert [verdict["duplicate_of"] for verdict in send(site, *others)] == [None] * len(others)
    # Its author, time and attributes do not make it another event.
    again = send(site, {}, {"role": "user", "context": []}, {"author_id": "a", "attributes": {"room": "1"}})
    assert [verdict["duplicate_of"] for verdict in again] == [first["verdict_id"]] * 3


def test_only_tenants_whose_policies_say_so_share_assessments(site: Site) -> None:
    site.create_topics()
    for tenant, shares in (("one", True), ("two", True), ("three", False), ("four", False)):
        set_policy(site, tenant, f"shared_cache: {str(shares).lower()}\n")
    worker = site.worker()
    reused = []
    for number, tenant in enumerate(["one", "two", "three", "four", "three"]):
        (verdict,) = send(site, {"tenant_id": tenant, "event_id": "e" if number < 4 else "f"})
        assert verdict["duplicate_of"] is None, "an event of one tenant is none of another's"
        await_commits(worker, number + 1)
        reused.append(worker.metric("guardline_assessments_reused_total"))
    # The second reuses the first one's assessment, the fifth the third's; the third and the fourth reuse none.
    assert reused == [0, 1, 1, 1, 2]


def test_no_duplicate_names_a_verdict_that_was_too_large(site: Site) -> None:
    """A dead letter replaces it: the second copy of the event is the first one with a verdict."""
    site.create_topics()
    settings = site.settings()
    entry = ConfigEntry("max.message.bytes", "4000", incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType.TOPIC, settings.topics.review, incremental_configs=[entry])
    admin = AdminClient({"bootstrap.servers": settings.kafka.bootstrap_servers})
    for future in admin.incremental_alter_configs([resource]).values():
        future.result(10)
    set_policy(site, "acme", "safe: review\ncontroversial: review\nunsafe: review\n")
    site.worker()
    site.produce([(b"k", json.dumps(EVENT).encode())], headers=[("traceparent", b"x" * 4_000)])
    assert site.check().by_position[site.sent[-1]][0]["reason"] == b"output_too_large"
    (second,) = send(site, {})
    (third,) = send(site, {})
    assert second["duplicate_of"] is None
    assert third["duplicate_of"] == second["verdict_id"]
