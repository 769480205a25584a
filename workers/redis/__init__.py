"""All code that knows Redis: deduplication, notes of crashes, and stored policies."""
