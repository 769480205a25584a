"""Every topic of the settings is described: for readers, for people who delete data, and for operators."""

from __future__ import annotations

from pathlib import Path

import pytest

from schemas.asyncapi import CHANNELS, MESSAGES
from schemas.generate import CONTRACTS
from workers.core.holdings import AGGREGATES, TOPICS, UNDELIVERED
from workers.settings import Topics

ROOT = Path(__file__).parents[3]
DEFAULTS = Topics()
NAMES: dict[str, list[str]] = {
    "inputs": DEFAULTS.inputs,
    **{name: [topic] for name, topic in DEFAULTS if isinstance(topic, str)},
}


def test_every_setting_that_names_topics_says_what_personal_data_they_hold() -> None:
    assert set(TOPICS) == {*NAMES, UNDELIVERED, AGGREGATES}, (
        "add the topic to workers/core/holdings.py, then `make generated`"
    )


@pytest.mark.parametrize("topic", [topic for names in NAMES.values() for topic in names])
def test_a_topic_has_a_channel_a_contract_with_a_fixture_and_a_row_in_the_docs(topic: str) -> None:
    channels = [channel for channel in CHANNELS.values() if channel.address == topic]
    assert len(channels) == 1, "add the topic to CHANNELS in schemas/asyncapi.py"
    contracts = {model: name for name, model in CONTRACTS.items()}
    for message in map(MESSAGES.__getitem__, channels[0].messages):
        if message.model is not None:
            folder = ROOT / "tests/fixtures/contracts" / contracts[message.model]
            assert list(folder.glob("*.json")), f"add a record to {folder}"
    rows = (ROOT / "docs/contracts.md").read_text(encoding="utf-8").splitlines()
    assert any(line.startswith("| `") and f"`{topic}`" in line for line in rows), "add a row to docs/contracts.md"
