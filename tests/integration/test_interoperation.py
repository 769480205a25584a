"""One worker between other systems: CloudEvents in and out, and texts whose producer names no language."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.site import Site, eventually
from workers.kafka.intake import headers_of
from workers.kafka.reader import read

GERMAN = "Heute Abend gehen wir alle zusammen ins Kino"
DATA = {"tenant_id": "acme", "text": GERMAN}
ENVELOPE = {"specversion": "1.0", "id": "evt-2", "type": "said", "source": "/rooms/7", "data": DATA}
BINARY = [("ce_specversion", b"1.0"), ("ce_id", b"evt-1"), ("ce_source", b"/rooms/7"), ("ce_type", b"said")]


def outputs(site: Site, topic: str) -> list[tuple[dict[str, Any], dict[str, bytes | None]]]:
    """Give the value and the headers of each record."""
    records = read(site.settings().kafka, [topic], from_beginning=True, follow=False)
    return [(json.loads(one.value() or b""), dict(headers_of(one))) for one in records if one is not None]


def test_a_worker_reads_and_writes_cloud_events_and_finds_languages(site: Site) -> None:
    site.create_topics()
    policy = Path(site.folder.name) / "policy.yaml"
    policy.write_text("{safe: allow, controversial: allow, unsafe: allow, rules: [{language: de, decision: review}]}")
    site.command("policy", "set", "acme", policy)
    worker = site.worker(
        GUARDLINE_CLOUDEVENTS__READ="true",
        GUARDLINE_CLOUDEVENTS__WRITE="true",
        GUARDLINE_CLOUDEVENTS__SOURCE="/moderation/test",
        GUARDLINE_LANGUAGE__DETECTOR="lingua",
        GUARDLINE_LANGUAGE__CANDIDATES='["de", "en"]',
    )
    trace = ("traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
    site.produce([(b"k", json.dumps(DATA).encode())], headers=[*BINARY, trace])
    site.produce([(b"k", json.dumps(ENVELOPE).encode())], headers=[("content-type", b"application/cloudevents+json")])
    english = {**DATA, "event_id": "own", "text": "I will be at the station at five"}
    site.produce([(b"k", json.dumps(english).encode())], headers=BINARY)
    site.produce([(b"k", json.dumps({**english, "event_id": "named", "language": "de-AT"}).encode())])
    site.produce([(b"k", b"{")], headers=BINARY)
    outcome = site.check()

    settings = site.settings()
    verdicts = outputs(site, settings.topics.verdicts)
    seen = [
        (one["event_id"], one["language"], one["language_source"], one["decision"], one["attributes"])
        for one, _ in verdicts
    ]
    source = {"ce_source": "/rooms/7"}
    assert seen == [
        ("evt-1", "de", "detector", "review", source),
        ("evt-2", "de", "detector", "review", source),
        ("own", "en", "detector", "allow", source),
        ("named", "de-AT", "producer", "review", {}),
    ]
    for verdict, headers in verdicts:
        assert headers.pop("ce_time")
        assert headers.pop("traceparent", None) == (trace[1] if verdict["event_id"] == "evt-1" else None)
        assert headers == {
            "ce_specversion": b"1.0",
            "ce_id": verdict["verdict_id"].encode(),
            "ce_type": b"guardline.verdict.v1",
            "ce_source": b"/moderation/test",
            "content-type": b"application/json",
        }
    reviewed = [headers["ce_id"] for _, headers in outputs(site, settings.topics.review)]
    assert reviewed == [f"{one['verdict_id']}/review".encode() for one, _ in verdicts if one["decision"] == "review"]
    used = outputs(site, settings.topics.usage)
    assert sum(one["events"] for one, _ in used) == len(verdicts)
    assert {headers["ce_type"] for _, headers in used} == {b"guardline.usage.v1"}
    assert len({headers["ce_id"] for _, headers in used}) == len(used)

    (letter,) = outcome.by_position[site.sent[-1]]
    assert (letter["reason"], letter["ce_id"], letter["ce_type"]) == (b"not_json", b"evt-1", b"said")
    found = 'guardline_languages_total{source="detector"}'
    eventually(lambda: worker.metric(found) == 3, "the detector counts what it found")
