"""Signatures, verified by the reference library of Standard Webhooks."""

from __future__ import annotations

import base64
import json
import secrets
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from workers.actions.signing import read_secret, signed_headers


def new_secret(size: int = 24) -> str:
    return "whsec_" + base64.b64encode(secrets.token_bytes(size)).decode()


@given(st.dictionaries(st.text(), st.text()))
def test_the_reference_library_verifies_every_signed_body(data: dict[str, str]) -> None:
    secret = new_secret()
    body = json.dumps(data, ensure_ascii=False).encode()
    headers = signed_headers([read_secret(secret)], "verdict-1", time.time(), body)
    assert Webhook(secret).verify(body, headers) == data


def test_each_of_two_secrets_verifies_a_call_that_both_sign() -> None:
    new, old = new_secret(), new_secret(64)
    headers = signed_headers([read_secret(new), read_secret(old)], "1", time.time(), b"{}")
    for secret in (new, old):
        assert Webhook(secret).verify(b"{}", headers) == {}
    with pytest.raises(WebhookVerificationError):
        Webhook(new_secret()).verify(b"{}", headers)


@pytest.mark.parametrize("changed", ["id", "body", "time"])
def test_a_call_that_was_changed_is_refused(changed: str) -> None:
    secret = new_secret()
    headers = signed_headers([read_secret(secret)], "1", time.time(), b"{}")
    if changed == "id":
        headers["webhook-id"] = "2"
    if changed == "time":
        headers["webhook-timestamp"] = str(int(time.time()) + 5)
    with pytest.raises(WebhookVerificationError):
        Webhook(secret).verify(b"[]" if changed == "body" else b"{}", headers)


def test_a_call_that_is_sent_again_much_later_is_refused() -> None:
    secret = new_secret()
    headers = signed_headers([read_secret(secret)], "1", time.time() - 600, b"{}")
    with pytest.raises(WebhookVerificationError, match="too old"):
        Webhook(secret).verify(b"{}", headers)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "does not begin with whsec_"),
        ("whsec_pass word", "is not Base64 after whsec_"),
        ("whsec_cGFzc3dvcmQ=", "holds 8 bytes after whsec_, and needs 24 to 64"),
    ],
)
def test_a_secret_of_another_form_is_refused_without_showing_it(text: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence) as refused:
        read_secret(text)
    assert text not in str(refused.value)
    assert "pass" not in str(refused.value)
