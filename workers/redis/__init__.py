"""All that knows Redis: deduplication, deaths, and stored policies."""
