"""Signs calls by Standard Webhooks (https://www.standardwebhooks.com, specification 1.0.0). Pure."""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Sequence

PREFIX = "whsec_"

MIN_BYTES, MAX_BYTES = 24, 64
"""The length of a secret by the specification."""


def read_secret(text: str) -> bytes:
    """Return the key in a secret such as `whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw`.

    Raises:
        ValueError: it is not one. The sentence shows nothing of it.
    """
    text = text.strip()
    if not text.startswith(PREFIX):
        raise ValueError(f"does not begin with {PREFIX}")
    try:
        key = base64.b64decode(text.removeprefix(PREFIX), validate=True)
    except binascii.Error:
        raise ValueError(f"is not Base64 after {PREFIX}") from None
    if not MIN_BYTES <= len(key) <= MAX_BYTES:
        raise ValueError(f"holds {len(key)} bytes after {PREFIX}, and needs {MIN_BYTES} to {MAX_BYTES}")
    return key


def signed_headers(keys: Sequence[bytes], message_id: str, now_s: float, body: bytes) -> dict[str, str]:
    """Return the three headers of a signed call: one signature for each key, so that keys can be replaced.

    The timestamp is that of this attempt, so that a receiver can refuse an old call that someone sends again.
    """
    timestamp = str(int(now_s))
    content = b"%b.%b.%b" % (message_id.encode(), timestamp.encode(), body)
    signatures = (base64.b64encode(hmac.digest(key, content, "sha256")).decode() for key in keys)
    return {
        "webhook-id": message_id,
        "webhook-timestamp": timestamp,
        "webhook-signature": " ".join(f"v1,{signature}" for signature in signatures),
    }
