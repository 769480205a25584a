"""Bad values are refused, each with a sentence that names the value and never shows a secret."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from helm_python.errors import HelmError

from tests.unit.helm.rendered import CHART, Document, example, render
from workers.settings.descriptions import described

SECRET = "s3cr3t-value"


TABLE = yaml.safe_load((Path(__file__).parent / "refusals.yaml").read_text(encoding="utf-8"))
NAMES = json.loads((CHART / "files" / "settings.json").read_text(encoding="utf-8"))
SECTIONS = dict.fromkeys(name.partition(".")[0] for name in NAMES)
CONTRADICTIONS, MISFITS = TABLE["contradictions"], TABLE["misfits"]


def refusal(name: str, changes: Document) -> str:
    """Return what Helm says of an example with changes."""
    with pytest.raises(HelmError) as caught:
        render(example(name, **changes))
    return str(caught.value)


@pytest.mark.parametrize("case", CONTRADICTIONS, ids=lambda case: case["said"][:70])
def test_a_contradiction_is_refused_with_its_sentence(case: Document) -> None:
    said = refusal(case["example"], case["values"])
    sentence = case["said"].replace("SECTIONS", ", ".join(SECTIONS))
    assert f"- {sentence}" in said.splitlines()
    assert SECRET not in said


@pytest.mark.parametrize("case", MISFITS, ids=lambda case: case["said"][:70])
def test_the_schema_names_the_value_that_does_not_fit(case: Document) -> None:
    assert case["said"] in refusal("cpu", case["values"])


def test_all_contradictions_are_said_at_once() -> None:
    said = refusal("cpu", {"config": {"kafka": None, "redis": None, "dedup": {"secret": SECRET}}})
    assert len([line for line in said.splitlines() if line.startswith("- ")]) == 3


@pytest.mark.parametrize(
    "changes",
    [
        {"config": {"guard": {"openai": {"urls": ["https://guard:8000"]}}}},
        {"config": {"redis": {"url": "redis://guard@valkey:6379/0"}}},
        {"config": {"redis": {"url": "rediss://valkey:6379/0?protocol=3&ssl_cert_reqs=required"}}},
        {"config": {"batch": {"max_tokens": 100}, "guard": {"context_tokens": 100, "window_tokens": 50}}},
        {"config": {"kafka": {"properties": {"ssl.certificate.pem": "CERTIFICATE", "sasl.username": "guard"}}}},
        {"config": {"kafka": {"token_provider": "mine:token"}}},
        {"config": {"kafka": {"property_files": {"sasl.password": "/run/secrets/kafka-password"}}}},
        {"env": {"GUARDLINE_DEDUP__SECRET_FILE": "/run/secrets/dedup"}},
        {"config": {"redis": None}, "env": {"GUARDLINE_REDIS__URL_FILE": "/run/secrets/redis-url"}},
        {"env": {"GUARDLINE_KAFKA__GROUP": "mine", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"}},
    ],
)
def test_what_only_looks_like_a_secret_is_accepted(changes: Document) -> None:
    assert render(example("cpu", **changes))


@pytest.mark.parametrize("name", [one.name for one in described() if "SecretStr" in str(one.field.annotation)])
def test_every_secret_setting_is_refused_in_the_settings_file_and_in_plain_variables(name: str) -> None:
    secret = f"https://user:{SECRET}@host" if name.endswith("url") else SECRET
    values: Any = secret
    for part in reversed(name.split(".")):
        values = {part: values}
    variable = f"GUARDLINE_{name.upper().replace('.', '__')}"
    assert f"- config.{name}: " in refusal("cpu", {"config": values})
    said = refusal("cpu", {"env": {variable: secret}})
    assert f"- env.{variable}: may hold a secret" in said
    assert SECRET not in said
