"""Checks at start that the brokers let this user do with the topics what a worker does.

Otherwise the worker would learn of a missing right only when it writes its first output. Brokers without ACLs allow
everything, and older ones do not say what they allow.
"""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress

from confluent_kafka import KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._acl import AclOperation

from workers.errors import Unavailable
from workers.kafka import causes
from workers.kafka.route import Route

INPUT = (AclOperation.READ,)
OUTPUT = (AclOperation.WRITE, AclOperation.DESCRIBE_CONFIGS)


def check(admin: AdminClient, route: Route, answer_s: float) -> None:
    """Check the rights on all topics. Blocks for `answer_s` at most.

    Raises:
        Misconfigured: one is missing; the sentence names it.
        Unavailable: Kafka does not answer, or a topic is not there.
    """
    wanted = {
        topic: (route.setting_of(topic), INPUT * (topic in route.inputs) + OUTPUT * (topic in route.outputs))
        for topic in [*route.inputs, *route.outputs]
    }
    names = TopicCollection([*wanted])
    # The client gives up later than the wait below: which of the two ends first would change the sentence.
    answers = admin.describe_topics(names, include_authorized_operations=True, request_timeout=2 * answer_s)
    for name, (setting, needed) in wanted.items():
        try:
            allowed = answers[name].result(answer_s).authorized_operations
        except KafkaException as error:
            raise causes.failure(
                f"{setting}: cannot describe {name}", error.args[0], needs=f"{needed[0].name} on {name}"
            ) from error
        except TimeoutError as error:
            where = f"kafka.bootstrap_servers {route.kafka.bootstrap_servers!r}"
            raise Unavailable(f"{setting}: cannot describe {name}: no answer in time from {where}") from error
        for operation in needed if allowed is not None else ():
            if operation not in allowed and AclOperation.ALL not in allowed:
                raise causes.not_allowed(f"{setting}: {DOES[operation].format(name)}", f"{operation.name} on {name}")


def unreadable(admin: AdminClient, names: Collection[str], answer_s: float) -> set[str]:
    """Return the topics that this user may see and may not read. Brokers that do not say so allow everything.

    Blocks for `answer_s` at most. A topic about which the brokers give no answer counts as readable.
    """
    found: set[str] = set()
    if not names:
        return found
    answers = admin.describe_topics(
        TopicCollection([*names]), include_authorized_operations=True, request_timeout=answer_s
    )
    for name, answer in answers.items():
        with suppress(KafkaException):
            allowed = answer.result().authorized_operations
            if allowed is not None and not {AclOperation.READ, AclOperation.ALL} & set(allowed):
                found.add(name)
    return found


DOES = {
    AclOperation.READ: "this user may not read {}",
    AclOperation.WRITE: "this user may not write to {}",
    AclOperation.DESCRIBE_CONFIGS: "this user may not ask how large a record {} takes",
}
