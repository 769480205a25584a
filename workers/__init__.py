"""Kafka workers: each event in, exactly one verdict or dead letter out."""
