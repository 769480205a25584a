"""The worker that moderates streams through Kafka."""
