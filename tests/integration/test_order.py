"""The partitions of the outputs: the order within a key is the order within a partition."""

from __future__ import annotations

import json
from pathlib import Path

from tests.site import Site

GOOD = json.dumps({"event_id": "good", "tenant_id": "acme", "surface": "chat", "text": "hello"}).encode()

# murmur2 of the keys as the unit tests of Apache Kafka and librdkafka give it; a producer in Java takes it without its
# sign, modulo the number of partitions.
MURMUR2 = {b"foobar": -790332482, b"21": -973932308, b"": 275646681}

# A record without a key gets its partition's number for one: computed by the same function.
MURMUR2_OF_A_PARTITION = {b"0": 971027396, b"1": -1993445489, b"2": 648968168, b"3": -1148165505}


def test_murmur2_of_the_key_chooses_the_output_partition(site: Site) -> None:
    """Verdicts, review items and dead letters; keys, an empty key and none."""
    partitions = 4
    site.create_topics()
    policy = Path(site.folder.name) / "policy.yaml"
    policy.write_text("safe: review\ncontroversial: review\nunsafe: review\n")
    site.command("policy", "set", "acme", policy)
    site.worker()
    site.produce((key, value) for key in [*MURMUR2, None] for value in [GOOD, b"{"] for _ in range(8))
    found = site.check().partitions
    for (_, key), fallen in found.items():
        assert key is not None
        assert fallen == {({**MURMUR2, **MURMUR2_OF_A_PARTITION}[key] & 0x7FFF_FFFF) % partitions}
    for topic in site.settings().topics.outcomes:
        assert {key for name, key in found if name == topic} >= MURMUR2.keys()
        assert {key for name, key in found if name == topic} & MURMUR2_OF_A_PARTITION.keys()
