"""The one error of the embedded stack."""

from workers.errors import Misconfigured


class DevstackError(Misconfigured):
    """The embedded stack cannot do what was asked; the message is a sentence that says why and what to do."""
