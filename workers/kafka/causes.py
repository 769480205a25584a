"""Says what a failure of Kafka means for who asked: that it may pass, or that no wait heals it."""

from __future__ import annotations

from confluent_kafka import KafkaError

from workers.errors import Misconfigured, Unavailable

INCURABLE = {
    KafkaError._AUTHENTICATION,
    KafkaError._INVALID_ARG,
    KafkaError._SSL,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED,
    KafkaError.GROUP_AUTHORIZATION_FAILED,
    KafkaError.ILLEGAL_SASL_STATE,
    KafkaError.INVALID_CONFIG,
    KafkaError.INVALID_PARTITIONS,
    KafkaError.INVALID_REPLICATION_FACTOR,
    KafkaError.INVALID_REQUEST,
    KafkaError.INVALID_TRANSACTION_TIMEOUT,
    KafkaError.POLICY_VIOLATION,
    KafkaError.SASL_AUTHENTICATION_FAILED,
    KafkaError.SECURITY_DISABLED,
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.TOPIC_EXCEPTION,
    KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
    KafkaError.UNSUPPORTED_SASL_MECHANISM,
    KafkaError.UNSUPPORTED_VERSION,
}
"""What brokers refuse whenever they are asked. Everything else may pass: a list of that would never be complete, and a
start that waits in vain costs a minute, one that does not wait a restart by hand."""


def failure(sentence: str, cause: KafkaError) -> Unavailable | Misconfigured:
    """Give the error to raise for a call that failed; what the broker or the client said ends the sentence."""
    return (Misconfigured if cause.code() in INCURABLE else Unavailable)(f"{sentence}: {cause.str()}")
