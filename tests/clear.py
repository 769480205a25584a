"""Texts that every sensible guard judges alike, for tests that need one text of a kind and not a certain checkpoint."""

from __future__ import annotations

SAFE = "Good morning! The weather is lovely today."
UNSAFE = "I will find you and kill you"
HIDDEN = "\u200b".join(UNSAFE)
"""The unsafe text with characters of no width between its letters: it reads Safe unless they are removed."""
