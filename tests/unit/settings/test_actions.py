"""A wrong setting of an endpoint is refused with a sentence that names the endpoint by its number, and no secret."""

from __future__ import annotations

import json
from typing import Any

import pytest

from workers.errors import Misconfigured
from workers.settings import load
from workers.settings.table import rows

VALID: dict[str, Any] = {"name": "platform", "url": "https://platform.example/hook", "secret_files": ["/run/secret"]}

COOP = {"item_type": "message-type", "user_type": "user-type"}


def refusal(monkeypatch: pytest.MonkeyPatch, *endpoints: object) -> str:
    monkeypatch.setenv("GUARDLINE_ACTIONS__ENDPOINTS", json.dumps(endpoints))
    with pytest.raises(Misconfigured) as refused:
        load()
    return str(refused.value)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"name": "A b"}, "name: has to be small letters, digits and hyphens, at most 40"),
        ({"url": "http://platform.example"}, "url begins with http://, and calls would not be encrypted: set allow_"),
        ({"url": "https://u:pass-word@platform.example"}, "url: holds a user: put the login into header_files"),
        ({"url": "ftp://pass-word"}, "url: has to begin with https:// or http://"),
        ({"url": "https://a..b/"}, "url: has a host that is no name"),
        ({"url": f"https://{'a' * 64}.example/"}, "url: has a host that is no name"),
        ({"url": "https:///pass-word"}, "url: names no host"),
        ({"url": "https://2130706433/"}, "url: has a host that is neither a name nor an address"),
        ({"url": "https://platform.example/pass-word é"}, "url: holds a character that cannot stand in a URL"),
        ({"secret_files": []}, "secret_files is empty: calls would not be signed"),
        ({"secret_files": ["whsec_pass-word"]}, "secret_files: number 1 has to be the absolute path of a file"),
        ({"concurrency": 0}, "concurrency: has to be at least 1"),
        ({"kinds": ["verdicts"]}, "kinds: has to be 'verdict', 'superseding', 'signal', 'review' or 'appeal'"),
        ({"kinds": []}, "kinds: is empty"),
        ({"retry": {"first_s": 5, "max_s": 1}}, "retry.first_s (5) must not be above retry.max_s (1)"),
        ({"headers": {"X-Key": "pass-word\n"}}, "headers: X-Key holds a character that is not printable ASCII"),
        ({"headers": {"pass word": "x"}}, "headers: a name is not that of an HTTP header"),
        ({"headers": {"Webhook-Id": "x"}}, "headers: Webhook-Id cannot be set: the worker writes this header itself"),
        ({"header_files": {"X-Key": "pass-word"}}, "header_files: X-Key has to be the absolute path of a file"),
        ({"headers": {"X-Key": "a"}, "header_files": {"x-key": "/a"}}, "x-key is in headers and in header_files"),
        ({"allow_networks": ["10/8"]}, "allow_networks: number 1 is not a network such as 10.1.0.0/16"),
        (
            {"allow_networks": ["127.0.0.1/8"]},
            "allow_networks: number 1 is 127.0.0.1/8, whose host bits are set; did you mean 127.0.0.0/8?",
        ),
        ({"key_file": "/a"}, "key_file is set and cert_file is not"),
        ({"ca_file": ""}, "ca_file: is empty: name a file"),
        ({"undelivered": "a b"}, "undelivered: is not the name of a topic"),
        ({"kinds": ["appeal"]}, "kinds names appeal, which only the format coop can deliver"),
        ({"format": "coop"}, "format is coop, and coop is not set"),
        ({"coop": COOP}, "coop is set, and format is not coop"),
        ({"format": "coop", "coop": COOP}, "kinds: the format coop delivers only review and appeal"),
        ({"format": "coop", "coop": COOP, "kinds": ["review"]}, "header_files names no file for X-API-KEY"),
        ({"format": "coop", "coop": {**COOP, "fields": {"texts": "a"}}}, "'texts' is no value of an item"),
        ({"tenant": "acme"}, "tenant: there is no such setting in a section of this list"),
    ],
)
def test_a_wrong_endpoint_is_named_by_its_number_and_field(
    monkeypatch: pytest.MonkeyPatch, change: dict[str, Any], sentence: str
) -> None:
    said = refusal(monkeypatch, {**VALID, "name": "other"}, {**VALID, **change})
    assert said.startswith("actions.endpoints, number 2")
    assert sentence in said
    assert not any(secret in said for secret in ("pass-word", "pass word"))


def test_two_endpoints_with_one_name_or_one_topic_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "two endpoints have the name platform" in refusal(monkeypatch, VALID, VALID)
    shared = {**VALID, "name": "other", "undelivered": "moderation.undelivered.platform"}
    assert "two endpoints have the undelivered moderation.undelivered.platform" in refusal(monkeypatch, VALID, shared)


def test_the_settings_in_force_show_no_secret_of_an_endpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    endpoint = {**VALID, "url": "https://platform.example/pass-word", "headers": {"X-Key": "pass-word"}}
    monkeypatch.setenv("GUARDLINE_ACTIONS__ENDPOINTS", json.dumps([endpoint]))
    shown = {name: value for name, value, _ in rows(load())}["actions.endpoints"]
    assert "platform" in shown
    assert "pass-word" not in shown


def test_the_topics_of_dead_letters_are_created_and_belong_to_one_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GUARDLINE_ACTIONS__ENDPOINTS", json.dumps([VALID]))
    assert load().all_topics == [*load().topics.all, "moderation.undelivered.platform"]
    said = refusal(monkeypatch, {**VALID, "undelivered": "moderation.verdicts"})
    assert "platform: undelivered is moderation.verdicts, which a setting of topics names too" in said


def test_a_mistyped_field_is_named_beside_the_one_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    mistyped = {"ulr" if name == "url" else name: value for name, value in VALID.items()}
    said = refusal(monkeypatch, mistyped)
    assert "actions.endpoints, number 1, url: the field is required" in said
    assert "actions.endpoints, number 1, ulr: there is no such setting" in said
