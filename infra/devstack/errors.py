"""The one error of the embedded stack."""

from workers.errors import Misconfigured


class DevstackError(Misconfigured):
    """The embedded stack failed; the message is a sentence that says why and what to do."""
