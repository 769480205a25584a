"""The demo: real events through a real Kafka into verdicts, with one of two workers killed on the way."""
