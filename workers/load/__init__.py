"""Made-up traffic for a running group: which records are sent and when, and what became of them."""
