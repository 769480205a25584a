"""Delivers verdicts and signals to the endpoints of a platform, by HTTP."""
