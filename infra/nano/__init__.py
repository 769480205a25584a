"""guard-nano: the small checkpoint that the project ships, and the script that trained it."""
