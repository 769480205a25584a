"""What runs around the workers: the embedded stack, the nano checkpoint."""
