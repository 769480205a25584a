"""The words that every contract shares: severities, categories, decisions, surfaces and roles.

Severities and categories carry Qwen3Guard's own names (Qwen3Guard Technical Report, section 2), letter for letter.
"""

from enum import StrEnum


class Severity(StrEnum):
    """How bad the model finds a content."""

    SAFE = "Safe"
    CONTROVERSIAL = "Controversial"
    UNSAFE = "Unsafe"


class Category(StrEnum):
    """What the model finds bad about a content. `JAILBREAK` applies to prompts (role `user`) only."""

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
    """What the tenant does with a content, from the mildest to the strictest."""

    ALLOW = "allow"
    REVIEW = "review"
    BLOCK = "block"


class Surface(StrEnum):
    """Where a content appears."""

    CHAT = "chat"
    COMMENT = "comment"


class Role(StrEnum):
    """Who wrote a content: a person, or a model that answers one."""

    USER = "user"
    ASSISTANT = "assistant"
