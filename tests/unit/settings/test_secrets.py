"""A canary is put into each setting in turn: nothing that is shown of the settings, right or wrong, holds it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_origin

import pytest
from pydantic import BaseModel

from workers.errors import Misconfigured
from workers.settings import Settings, load
from workers.settings.kafka_properties import HARMLESS, why_refused
from workers.settings.secret_files import variable_of
from workers.settings.table import rows
from workers.shown import MASK

CANARY = "cAnArY42"


def leaves(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Give each setting with its type, so that a new one is tested without a word here."""
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from leaves(field.annotation, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", field.annotation


SETTINGS = dict(leaves(Settings))

IN_URLS = [f"https://user:{password}@host:1/0" for password in (CANARY, f"{CANARY}/x", f"x#{CANARY}", f"x@{CANARY}?x")]
TEXTS = [*IN_URLS, f"https://host:1/?key={CANARY}"]


def is_name(kind: Any) -> bool:
    """Whether a setting is a name or path, or a list of some."""
    return kind in (str, Path) or (get_origin(kind) is not dict and any(is_name(part) for part in get_args(kind)))


def values(kind: Any) -> Iterator[str]:
    """Give what somebody may write into a variable for a setting of this type: secrets, URLs, and what is no value."""
    yield from TEXTS
    yield json.dumps(TEXTS)
    if is_name(kind):
        return  # What is written there is a name, and is shown.
    yield from (CANARY, json.dumps([CANARY]), f"{{not json {CANARY}")
    for form in ("redis://", "redis+sentinel://", "redis+cluster://"):
        yield from (url.replace("https://", form) for url in IN_URLS)
    yield f"redis+sentinel://u:{CANARY}@h1:1,h2:2/mine/x?sentinel_password={CANARY}&no_such={CANARY}"
    if get_origin(kind) is dict:
        yield json.dumps({"some.name": CANARY, "password": CANARY, "inner": {"a": CANARY}, "list": [CANARY]})
        yield json.dumps({"some.name": CANARY, "sasl.oauthbearer.config": CANARY, "dtype": TEXTS[0]})


def shown() -> str:
    """Give what a command says of the settings: all of them, or what is wrong with them."""
    try:
        return str([*rows(load())])
    except Misconfigured as refused:
        return str(refused)


@pytest.mark.parametrize("name", SETTINGS)
def test_a_canary_in_a_setting_is_never_shown(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for value in values(SETTINGS[name]):
        monkeypatch.setenv("GUARDLINE_" + name.upper().replace(".", "__"), value)
        assert CANARY not in shown(), value


@pytest.mark.parametrize("name", SETTINGS)
def test_a_canary_in_a_file_that_a_variable_names_is_never_shown(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A value of each kind: what is read from a file goes the way of what is in a variable."""
    variable, file = f"{variable_of(name)}_FILE", tmp_path / "secret"
    monkeypatch.setenv(variable, CANARY)  # Somebody writes the secret where the path belongs.
    said = shown()
    assert variable in said
    assert CANARY not in said
    monkeypatch.setenv(variable, str(file))
    for value in (TEXTS[0], json.dumps(TEXTS), *(() if is_name(SETTINGS[name]) else (CANARY,))):
        file.write_text(f"{value}\n")
        assert CANARY not in shown(), value


@pytest.mark.parametrize("value", [CANARY, f"x{CANARY}/y", ""])
def test_a_canary_in_a_file_of_a_property_is_never_shown(
    value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "secret"
    file.write_text(CANARY)
    for name in ("sasl.password", "no.such", "group.id"):
        monkeypatch.setenv("GUARDLINE_KAFKA__PROPERTY_FILES", json.dumps({name: str(file)}))
        assert CANARY not in shown()
        monkeypatch.setenv("GUARDLINE_KAFKA__PROPERTY_FILES", json.dumps({name: value}))
        assert CANARY not in shown()


@pytest.mark.parametrize("name", sorted({name.rpartition(".")[0] for name in SETTINGS}))
@pytest.mark.parametrize("value", [CANARY, [CANARY], {"url": f"redis://:{CANARY}@host", "nmae": {"x": CANARY}}])
def test_a_canary_in_the_place_of_a_section_is_never_shown(
    name: str, value: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for part in reversed(name.split(".")):
        value = {part: value}
    file = tmp_path / "guardline.yaml"
    file.write_text(json.dumps(value))
    monkeypatch.setenv("GUARDLINE_CONFIG", str(file))
    assert CANARY not in shown()


def test_the_value_of_a_librdkafka_property_is_shown_only_where_it_is_known_to_be_harmless() -> None:
    secret = ("sasl.oauthbearer.client.secret", "sasl.oauthbearer.assertion.private.key.passphrase", "ssl.key.pem")
    properties = {**dict.fromkeys(secret, CANARY), "no.such": CANARY, "client.id": "one", "linger.ms": 5}
    settings = Settings.model_validate({"kafka": {"properties": properties}})
    found = {name: value for name, value, _ in rows(settings)}["kafka.properties"]
    assert found == str({**dict.fromkeys((*secret, "no.such"), MASK), "client.id": "one", "linger.ms": 5})


def test_no_harmless_property_is_one_that_cannot_be_set() -> None:
    assert {name for name in HARMLESS if why_refused(name)} == set()


def test_what_a_worker_finds_out_at_its_start_is_not_shown_as_a_value() -> None:
    found = {name: value for name, value, _ in rows(Settings())}
    assert found["worker.id"] == "worked out at the start: random"
    assert found["guard.openai.timeout_s"] == "30, by the number of servers"
    assert "None" not in found.values()
    assert {name for name, value in found.items() if value.startswith("worked out")} >= {"guard.threads", "worker.id"}
