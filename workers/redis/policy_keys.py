"""The names under which policies are stored in Redis. On a cluster the tag in braces keeps them in one slot."""


class Keys:
    """The keys of one namespace.

    Attributes:
        policies: hash, tenant id to JSON document; `{"version": n, "deleted": true}` replaces a deleted one.
        changes: stream with `sequence`, `tenant`, `version` and `document` of each change and deletion.
        sequence: count of changes; a gap in the stream's sequences shows that entries were trimmed before they were
            read.
    """

    __slots__ = ("changes", "policies", "sequence")

    def __init__(self, namespace: str) -> None:
        self.policies = f"{namespace}:{{policies}}"
        self.changes = f"{namespace}:{{policies}}:changes"
        self.sequence = f"{namespace}:{{policies}}:sequence"
