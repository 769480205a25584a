"""All that knows Kafka: clients, intake, outbox, and the thread that runs them."""
