"""The terms of all contracts: severities, categories, decisions, surfaces and roles.

Severities and categories have exactly Qwen3Guard's names (Qwen3Guard Technical Report, section 2).
"""

from enum import StrEnum


class Severity(StrEnum):
    """How harmful the model finds a text."""

    SAFE = "Safe"
    CONTROVERSIAL = "Controversial"
    UNSAFE = "Unsafe"


class Category(StrEnum):
    """The kind of harm that the model finds. `JAILBREAK` applies to prompts (role `user`) only."""

    VIOLENT = "Violent"
    NON_VIOLENT_ILLEGAL_ACTS = "Non-violent Illegal Acts"
    SEXUAL_CONTENT = "Sexual Content or Sexual Acts"
    PII = "PII"
    SUICIDE_AND_SELF_HARM = "Suicide & Self-Harm"
    UNETHICAL_ACTS = "Unethical Acts"
    POLITICALLY_SENSITIVE_TOPICS = "Politically Sensitive Topics"
    COPYRIGHT_VIOLATION = "Copyright Violation"
    JAILBREAK = "Jailbreak"


class Decision(StrEnum):
    """The tenant's decision, from the mildest to the strictest."""

    ALLOW = "allow"
    REVIEW = "review"
    BLOCK = "block"


class Surface(StrEnum):
    """Where a text appears."""

    CHAT = "chat"
    COMMENT = "comment"


class Role(StrEnum):
    """The author of a text: a person, or a model that answers a person."""

    USER = "user"
    ASSISTANT = "assistant"
