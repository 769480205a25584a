"""Engines: token ids in, log-probabilities out. They know nothing about moderation."""
