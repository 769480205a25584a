"""What every worker process has: its lifecycle and its HTTP endpoints."""
