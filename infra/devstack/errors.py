"""The one error of the embedded stack."""

from workers.errors import Fatal


class DevstackError(Fatal):
    """The embedded stack cannot do what was asked; the message is a sentence that says why and what to do."""
