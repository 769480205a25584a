"""The errors of the project, by what the caller does about them. A stage raises no other errors to its caller."""

MISSING_CODE = 3
"""The exit code of a command that compared topics and found that something is missing. 1 means that it could not."""


def to_install(extra: str) -> str:
    """Say how an extra is installed. `make setup` makes an environment without pip."""
    return f"`make extra NAME={extra}` in the clone, or pip install '.[{extra}]' in an environment of your own"


class GuardlineError(Exception):
    """Any error that this project raises on purpose."""


class Unavailable(GuardlineError):
    """The same call may succeed later: retry with back-off until the deadline."""


class OneAtFault(GuardlineError):
    """Only one record or one content is at fault, and the others continue.

    `reason` is one of a small fixed set (it is a metric label and a header); `detail` is a sentence for a person.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class Undecodable(OneAtFault):
    """No event can be made of this record: it becomes a dead letter."""


class Skipped(OneAtFault):
    """This record holds no message: the worker counts it, and writes nothing about it."""


class Unjudgeable(OneAtFault):
    """This content cannot be judged: its verdict has no assessment, and the tenant's policy decides."""


class Fatal(GuardlineError):
    """To continue would break a guarantee, or is not possible: the process says why and exits with a non-zero code."""


class Misconfigured(Fatal):
    """A setting, or what it refers to, is wrong: found at start, exit code 2, and the sentence names the setting."""
