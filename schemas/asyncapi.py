"""The AsyncAPI document of all topics, made from the same models as the JSON Schemas.

A topic of the workers needs its entry in `CHANNELS`; a test compares the entries with the settings.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from schemas.audit import AuditRecord
from schemas.delivery import Delivery
from schemas.event import Event
from schemas.forget import Forget
from schemas.headers import (
    DeadLetterHeaders,
    EventHeaders,
    OutputHeaders,
    ReplayNoteHeaders,
    UndeliveredHeaders,
    VerdictHeaders,
)
from schemas.meanings import describe
from schemas.review import ReviewItem
from schemas.review_command import ReviewCommand
from schemas.review_state import ReviewState
from schemas.signal import Signal
from schemas.stream import Intervention, StreamEvent, StreamSession, StreamVerdict
from schemas.usage import Usage
from schemas.verdict import Verdict

VERSION = "3.0.0"

CONTRACT_VERSION = "1.0.0"
"""The version of the document. Its first number rises when a reader of the last version would misread a record."""

KAFKA_BINDING = "0.5.0"

INTRODUCTION = """\
The topics of a Guardline moderation group. Workers read events from the input topics. For every event they write
one verdict, and for every verdict of `review` also one review item. A record of which no event can be made becomes a
dead letter. All outputs of a record, and its offset, are in one transaction: read them with
`isolation.level=read_committed`.

The addresses are the default names of the topics; the settings `topics.*` change them. The key of an outcome is
the key of its input record, so the outcomes of one key keep their order.

Workers also read records that break the contract of events, and other shapes of records through a mapping. Readers
should ignore fields that they do not know."""


class Message(NamedTuple):
    """A kind of record. Without a payload model, `payload` is written as it is. `headers` is None if it has none."""

    title: str
    summary: str
    headers: type[BaseModel] | None
    model: type[BaseModel] | None = None
    payload: Mapping[str, Any] | None = None
    content_type: str = "application/json"


class Channel(NamedTuple):
    """A topic: its default name, whether workers read or write it, and the kinds of records in it."""

    address: str
    action: str
    messages: tuple[str, ...]
    summary: str
    parameters: Mapping[str, str] = {}
    """What each name in braces in the address stands for."""


MESSAGES: Mapping[str, Message] = {
    "event": Message("Event", "A chat message or comment to be judged.", EventHeaders, Event),
    "verdict": Message("Verdict", "The decision for one event. It never holds the text.", VerdictHeaders, Verdict),
    "reviewItem": Message("Review item", "A verdict and its text, for a person to decide.", VerdictHeaders, ReviewItem),
    "deadLetter": Message(
        "Dead letter",
        "A record that nobody judged: its value and headers, the reason, and its position.",
        DeadLetterHeaders,
        payload={"description": "The bytes of the record, unchanged."},
        content_type="application/octet-stream",
    ),
    "replayNote": Message(
        "Replay note",
        "Says that the message of a dead letter was sent again. Readers of dead letters should skip it.",
        ReplayNoteHeaders,
        payload={"type": "null", "description": "A note has no value."},
    ),
    "usage": Message(
        "Usage", "What the verdicts of one transaction add for one tenant and minute.", OutputHeaders, Usage
    ),
    "forget": Message("Forget", "A request to delete what is held of an author.", None, Forget),
    "reviewCommand": Message("Review command", "One change that is wanted of a review item.", None, ReviewCommand),
    "reviewState": Message("Review state", "A review item as it is now.", None, ReviewState),
    "audit": Message("Audit record", "Who did what with a review item, and when.", None, AuditRecord),
    "signal": Message("Signal", "Verdicts that add up: a threshold was crossed.", None, Signal),
    "delivery": Message("Delivery", "What became of a verdict or signal at one endpoint.", None, Delivery),
    "streamEvent": Message("Stream event", "One step of an answer that is being written.", None, StreamEvent),
    "streamVerdict": Message(
        "Stream verdict", "The answer to one stream event. It never holds the text.", None, StreamVerdict
    ),
    "intervention": Message("Intervention", "The end of a stream by the tenant's policy.", None, Intervention),
    "streamSession": Message("Stream session", "Where an open stream begins.", None, StreamSession),
    "undelivered": Message(
        "Undelivered",
        "A delivery that was given up: the body of its calls, and the reason.",
        UndeliveredHeaders,
        payload={"description": "The body of the calls, unchanged: for a webhook as in `webhook.schema.json`."},
    ),
}

CHANNELS: Mapping[str, Channel] = {
    "chat": Channel("moderation.chat", "receive", ("event",), "Messages of chats."),
    "comments": Channel("moderation.comments", "receive", ("event",), "Comments."),
    "verdicts": Channel("moderation.verdicts", "send", ("verdict",), "One verdict for each event."),
    "review": Channel("moderation.review", "send", ("reviewItem",), "One item for each verdict of `review`."),
    "deadLetters": Channel(
        "moderation.dead-letters", "send", ("deadLetter", "replayNote"), "Records without a verdict."
    ),
    "usage": Channel(
        "moderation.usage",
        "send",
        ("usage",),
        "What each tenant used, by minute: sum the records. The key is the tenant.",
    ),
    "forget": Channel(
        "moderation.forget",
        "receive",
        ("forget",),
        "Requests to forget an author. `guardline forget` writes them, and a platform may. The key is `TENANT|AUTHOR`.",
    ),
    "reviewCommands": Channel(
        "moderation.review-commands",
        "receive",
        ("reviewCommand",),
        "What people and systems want of review items. `guardline worker review` writes and reads it. The key is the "
        "item's `verdict_id`.",
    ),
    "reviewState": Channel(
        "moderation.review-state",
        "send",
        ("reviewState",),
        "The newest state of each review item: a compacted topic. The key is the item's `verdict_id`.",
    ),
    "audit": Channel(
        "moderation.audit",
        "send",
        ("audit",),
        "Every view and every change of a review item, without content. The key is the item's `verdict_id`.",
    ),
    "signals": Channel(
        "moderation.signals",
        "send",
        ("signal",),
        "Authors, tenants, contents and threads over a threshold. The key is `TENANT|SUBJECT`.",
    ),
    "deliveries": Channel(
        "moderation.deliveries",
        "send",
        ("delivery",),
        "One record for each delivery that has ended. The key is the id of the verdict or signal.",
    ),
    "streams": Channel(
        "moderation.streams",
        "receive",
        ("streamEvent",),
        "The answers of assistants while they are written. The key is the `stream_id`.",
    ),
    "streamVerdicts": Channel(
        "moderation.stream-verdicts",
        "send",
        ("streamVerdict",),
        "One verdict for each stream event. `guardline worker streams` writes it. The key is that of the event.",
    ),
    "interventions": Channel(
        "moderation.interventions",
        "send",
        ("intervention",),
        "The streams that were cut, each once. The key is that of the event.",
    ),
    "streamSessions": Channel(
        "moderation.stream-sessions",
        "send",
        ("streamSession",),
        "The open streams: a compacted topic, for the workers themselves. The key has the partition of the input "
        "topic, the tenant and the `stream_id`.",
    ),
    "undelivered": Channel(
        "moderation.undelivered.{endpoint}",
        "send",
        ("undelivered", "deadLetter", "replayNote"),
        "The deliveries to one endpoint that were given up, and records that are not verdicts or signals.",
        {"endpoint": "The name of the endpoint."},
    ),
}


def document() -> dict[str, Any]:
    """Give the document as plain JSON values."""
    models = {model for message in MESSAGES.values() for model in (message.model, message.headers) if model is not None}
    ordered = sorted(models, key=lambda model: model.__name__)
    _, definitions = models_json_schema(
        [(model, "validation") for model in ordered], ref_template="#/components/schemas/{model}"
    )
    describe(definitions["$defs"])
    return {
        "asyncapi": VERSION,
        "info": {
            "title": "Guardline",
            "version": CONTRACT_VERSION,
            "description": INTRODUCTION,
            "license": {"name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"},
        },
        "defaultContentType": "application/json",
        "channels": {name: _channel(channel) for name, channel in CHANNELS.items()},
        "operations": {_operation_name(name, channel): _operation(name, channel) for name, channel in CHANNELS.items()},
        "components": {
            "messages": {name: _message(name, message) for name, message in MESSAGES.items()},
            "schemas": definitions["$defs"],
        },
    }


def _channel(channel: Channel) -> dict[str, Any]:
    return {
        "address": channel.address,
        "summary": channel.summary,
        **(
            {"parameters": {name: {"description": meaning} for name, meaning in channel.parameters.items()}}
            if channel.parameters
            else {}
        ),
        "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in channel.messages},
        "bindings": {"kafka": {"topic": channel.address, "bindingVersion": KAFKA_BINDING}},
    }


def _operation_name(name: str, channel: Channel) -> str:
    return f"{'read' if channel.action == 'receive' else 'write'}{name[0].upper()}{name[1:]}"


def _operation(name: str, channel: Channel) -> dict[str, Any]:
    return {
        "action": channel.action,
        "channel": {"$ref": f"#/channels/{name}"},
        "messages": [{"$ref": f"#/channels/{name}/messages/{message}"} for message in channel.messages],
    }


def _message(name: str, message: Message) -> dict[str, Any]:
    headers = message.headers
    payload = message.payload if message.model is None else {"$ref": f"#/components/schemas/{message.model.__name__}"}
    return {
        "name": name,
        "title": message.title,
        "summary": message.summary,
        "contentType": message.content_type,
        **({} if headers is None else {"headers": {"$ref": f"#/components/schemas/{headers.__name__}"}}),
        "payload": payload,
        "bindings": {"kafka": {"key": {"type": "string"}, "bindingVersion": KAFKA_BINDING}},
    }
