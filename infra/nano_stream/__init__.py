"""Trains and measures nano-stream, the small model that judges an answer while it is written. See CARD.md."""
