"""Says what a failure of Kafka means for who asked: whether it may pass, and which setting or right is wrong."""

from __future__ import annotations

import re
from collections import deque
from typing import Any, NamedTuple

from confluent_kafka import KafkaError

from workers.errors import Misconfigured, Unavailable
from workers.settings import Kafka
from workers.settings.kafka_properties import hidden_values
from workers.shown import shown, without

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
"""What brokers refuse whenever they are asked. Everything else may pass, because a list of that would never be
complete. Waiting in vain costs a minute. Not waiting costs a restart by hand."""

NOT_ALLOWED = {
    KafkaError.CLUSTER_AUTHORIZATION_FAILED,
    KafkaError.GROUP_AUTHORIZATION_FAILED,
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
}
"""What an ACL would allow."""

MAX_HEARD = 32


class Sentence(NamedTuple):
    """What a report of librdkafka means: `pattern` is found in its text, `says` names the setting."""

    pattern: str
    says: str
    may_pass: bool = False


SENTENCES = (
    Sentence(
        r"OAUTHBEARER token: OAuth callback",
        "kafka.token_provider: its function gives no new token, and the last one has expired",
        may_pass=True,
    ),
    Sentence(
        r"SASL .*invalid_token",
        "the brokers {where} do not accept the token: check kafka.token_provider, or sasl.oauthbearer in "
        "kafka.properties",
    ),
    Sentence(
        r"OAUTHBEARER token: .*(connect|resolve|timed out|HTTP 5)",
        "kafka.properties: no token can be had: does sasl.oauthbearer.token.endpoint.url answer?",
        may_pass=True,
    ),
    Sentence(r"OAUTHBEARER token", "kafka.properties: no token can be had with these sasl.oauthbearer properties"),
    Sentence(r"Unsupported SASL mechanism", "kafka.properties: the brokers {where} do not offer this sasl.mechanism"),
    Sentence(
        r"not valid in current SASL state",
        "kafka.properties: the listener {where} has no login: security.protocol has to be PLAINTEXT or SSL there",
    ),
    Sentence(
        r"SASL .*(invalid credentials|failed|error)",
        "kafka.properties: the brokers {where} do not let this user in: check sasl.username and sasl.password",
    ),
    Sentence(
        r"certificate verify failed|could not be verified",
        "kafka.properties: the certificate of the brokers {where} is not accepted: ssl.ca.location has to name the "
        "authority that signed it, and kafka.bootstrap_servers a host that it is for",
    ),
    Sentence(
        r"alert (certificate required|bad certificate|unknown ca|certificate unknown|handshake failure)",
        "kafka.properties: the brokers {where} do not accept the certificate of this client, or miss one: check "
        "ssl.certificate.location and ssl.key.location",
    ),
    Sentence(
        r"PLAINTEXT broker listener|wrong version number|ssl://.*Disconnected.*in state SSL_HANDSHAKE",
        "kafka.properties: the listener {where} seems not to use TLS: check security.protocol",
        may_pass=True,
    ),
    Sentence(
        r"Disconnected.*in state APIVERSION_QUERY",
        "kafka.properties: something {where} closes each connection: it starts or stops, or uses TLS, and "
        "security.protocol does not say so",
        may_pass=True,
    ),
    Sentence(
        r"Disconnected.*in state UP",
        "kafka.properties: the brokers {where} close each connection: they start or stop, or want a login, and "
        "security.protocol does not say so",
        may_pass=True,
    ),
    Sentence(r"Failed to resolve", "kafka.bootstrap_servers: a name in it is not known {where}", may_pass=True),
)
"""Tried in this order. What may pass is also said of brokers that start."""

WITHOUT_OAUTH = (
    "kafka.properties: sasl.mechanism is OAUTHBEARER, and no token came: set kafka.token_provider, or set "
    "sasl.oauthbearer.method to oidc, and the token endpoint, client id and client secret with it"
)


def failure(sentence: str, cause: KafkaError, *, needs: str = "") -> Unavailable | Misconfigured:
    """Return the error to raise for a call that failed; what the broker or the client said ends the sentence.

    `needs` names the right that is missing where an ACL stands in the way.
    """
    if needs and cause.code() in NOT_ALLOWED:
        return not_allowed(f"{sentence}: {cause.str()}", needs)
    return (Misconfigured if cause.code() in INCURABLE else Unavailable)(f"{sentence}: {cause.str()}")


def not_allowed(sentence: str, needs: str) -> Misconfigured:
    """Return the error for a right that is missing."""
    return Misconfigured(f"{sentence}. The ACLs have to give this user {needs}: docs/operations.md, Permissions")


def no_answer(kafka: Kafka, heard: Heard, error: KafkaError) -> Unavailable | Misconfigured:
    """Return the error for brokers that were not reached, by what librdkafka reported. It names the setting."""
    where = f"at {shown(kafka.bootstrap_servers)!r}"
    report = heard.reason
    if report is None and kafka.token_provider is None and kafka.properties.get("sasl.mechanism") == "OAUTHBEARER":
        return Misconfigured(WITHOUT_OAUTH)
    # What follows is a piece of the property.
    said = without(hidden_values(kafka.properties), (report or error.str()).partition(" beginning at")[0])
    meaning = _meaning(said)
    if meaning is None:
        return Unavailable(f"kafka.bootstrap_servers: no Kafka answers {where}: {said}")
    return (Unavailable if meaning.may_pass else Misconfigured)(f"{meaning.says.format(where=where)}: {said}")


def _meaning(report: str) -> Sentence | None:
    return next((one for one in SENTENCES if re.search(one.pattern, report)), None)


class Heard:
    """Collects what librdkafka reports of the connections of one client: the calls that fail do not say it.

    Reports come while the client is polled. Must not raise.
    """

    def __init__(self) -> None:
        self._reports: deque[str] = deque(maxlen=MAX_HEARD)

    def add(self, error: KafkaError) -> None:
        """Take an error: the client's `error_cb`."""
        if error.code() != KafkaError._ALL_BROKERS_DOWN:
            self._reports.append(error.str())

    def log(self, level: int, event: str, *args: Any) -> None:
        """Take a line of the log: that a connection was closed is told nowhere else."""
        if len(args) > 1 and args[0] == "FAIL":
            self._reports.append(str(args[-1]).partition("]: ")[2])

    @property
    def reason(self) -> str | None:
        """The report that says most: that one broker refuses says more than that another is away."""
        told = list(reversed(self._reports))
        refused = next((one for one in told if (meaning := _meaning(one)) and not meaning.may_pass), None)
        return refused or next(filter(_meaning, told), None) or next(iter(told), None)

    @property
    def is_refused(self) -> bool:
        """Whether no wait heals what was reported."""
        reason = self.reason
        meaning = None if reason is None else _meaning(reason)
        return meaning is not None and not meaning.may_pass
