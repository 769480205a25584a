"""The errors of the project, by what the caller does about them. Nothing else may be raised across a stage's border."""


class GuardlineError(Exception):
    """Any error that this project raises on purpose."""


class Unavailable(GuardlineError):
    """The same call may succeed later: back off and call again until the deadline."""


class OneAtFault(GuardlineError):
    """One record or one content alone is at fault, and its neighbours go on.

    `reason` is one of a small closed set (it is a metric label and a header); `detail` is a sentence for a person.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class Undecodable(OneAtFault):
    """This record holds no event: it becomes a dead letter."""


class Unjudgeable(OneAtFault):
    """This content cannot be judged: its verdict has no assessment, and the tenant's policy decides."""


class Fatal(GuardlineError):
    """Going on would break a guarantee, or cannot work: the process says why and exits non-zero."""


class Misconfigured(Fatal):
    """A setting or something it points to is wrong: found at start, exit code 2, and the sentence names the setting."""
