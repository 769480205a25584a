"""`guardline dead-letters` and its `replay`: print the messages that nobody judged, and send them again."""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from workers import settings as settings_module
from workers.cli.interrupts import Interrupts
from workers.cli.tables import counted, say
from workers.cli.times import A_DATE, window_of
from workers.core.dead_letters import REASONS
from workers.errors import Misconfigured
from workers.process.logs import log_to_stderr

if TYPE_CHECKING:
    from workers.kafka.replay import Replayed, Stored

app = typer.Typer()

MAX_SHOWN_BYTES = 2_000
"""How much of a value is printed; it may have a megabyte."""

MAX_KINDS = 10
"""How many kinds of dead letters the line about those that were left out names."""

FILTERS = "--reason, --topic, --since and --until"

Reasons = Annotated[list[str] | None, typer.Option("--reason", help="Only those with this reason; may be repeated.")]
Topics = Annotated[list[str] | None, typer.Option("--topic", help="Only records of this topic; may be repeated.")]
Since = Annotated[str | None, typer.Option(help=f"Only dead letters written at this time or later. {A_DATE}")]
Until = Annotated[str | None, typer.Option(help=f"Only dead letters written before this time. {A_DATE}")]


@app.callback(invoke_without_command=True)
def dead_letters_command(
    context: typer.Context,
    reason: Reasons = None,
    topic: Topics = None,
    since: Since = None,
    until: Until = None,
    has_value: Annotated[bool, typer.Option("--value", help="Also print the beginning of each value.")] = False,
    sent_too: Annotated[bool, typer.Option("--all", help="Also dead letters whose messages were sent again.")] = False,
) -> None:
    """Print the messages that nobody judged: reason, position, key, and what is wrong."""
    wanted = chosen(reason, topic, since, until)
    if context.invoked_subcommand is not None:
        if reason or topic or since or until or has_value or sent_too:
            raise Misconfigured(
                f"put the options after the command: guardline dead-letters {context.invoked_subcommand}"
            )
        return
    from workers.kafka.replay import stored_letters

    left_out: Counter[str] = Counter()
    for stored in stored_letters(settings_module.load()):
        if stored is None or (stored.is_sent and not sent_too):
            continue
        if not wanted(stored):
            left_out[f"{stored.letter.reason} in {stored.letter.origin.topic}"] += 1
            continue
        say(_line(stored))
        if has_value:
            say(f"    {_shown_value(stored.value)}")
    if left_out:
        those = ", ".join(f"{count} {what}" for what, count in left_out.most_common(MAX_KINDS))
        say(f"{counted(left_out.total(), 'dead letter')} left out by {FILTERS}: {those}", err=True)


@app.command("replay")
def replay_command(
    reason: Reasons = None,
    topic: Topics = None,
    since: Since = None,
    until: Until = None,
    rate: Annotated[float | None, typer.Option(min=0.1, help="How many messages a second at most.")] = None,
    returned_too: Annotated[
        bool, typer.Option("--again", help="Also messages that became dead letters again after a replay.")
    ] = False,
    is_dry: Annotated[
        bool, typer.Option("--dry-run", help="Print the dead letters that would be sent; send nothing.")
    ] = False,
) -> None:
    """Send the messages of dead letters to their input topics again, each once, even if you repeat the command."""
    from workers.kafka.replay import Replayed, planned, replay

    log_to_stderr()
    settings = settings_module.load()
    wanted = chosen(reason, topic, since, until)
    counts = Replayed()
    if is_dry:
        for stored in planned(settings, wanted, counts, returned_too=returned_too):
            say(_line(stored))
            counts.sent += 1
        say(f"{counted(counts.sent, 'message')} would be sent again{_others(counts)}", err=True)
        return
    with Interrupts(is_reading=True) as interrupts:

        def wanted_still(stored: Stored) -> bool:
            interrupts.check()
            return wanted(stored)

        try:
            replay(settings, wanted_still, counts, rate=rate, returned_too=returned_too)
        except (KeyboardInterrupt, SystemError):
            if not interrupts.count:
                raise
            say(f"stopped; {counted(counts.sent, 'message')} sent again", err=True)
            raise typer.Exit(128 + signal.SIGINT) from None
    say(f"{counted(counts.sent, 'message')} sent again{_others(counts)}", err=True)


def chosen(
    reasons: list[str] | None, topics: list[str] | None, since: str | None, until: str | None
) -> Callable[[Stored], bool]:
    """Give the condition that the flags describe.

    Raises:
        Misconfigured: there is no such reason, or a time cannot be read.
    """
    for reason in reasons or ():
        if reason not in REASONS:
            raise Misconfigured(f"--reason: there is no reason {reason!r} (one of: {', '.join(REASONS)})")
    begin_s, end_s = window_of(since, until)

    def wanted(stored: Stored) -> bool:
        letter = stored.letter
        return (
            (not reasons or letter.reason in reasons)
            and (not topics or letter.origin.topic in topics)
            and (begin_s is None or stored.timestamp_ms >= begin_s * 1000)
            and (end_s is None or stored.timestamp_ms < end_s * 1000)
        )

    return wanted


def _others(counts: Replayed) -> str:
    said = {
        "sent before": counts.sent_before,
        "came back after a replay (--again sends those)": counts.returned,
        "cut off: only the beginning of the message is kept": counts.truncated,
        "from a topic that is not in topics.inputs, or from a topic or partition that does not exist": counts.elsewhere,
        "refused by Kafka": counts.refused,
        f"left out by {FILTERS}": counts.unwanted,
    }
    return "".join(f"; {count} {words}" for words, count in said.items() if count)


def _line(stored: Stored) -> str:
    letter = stored.letter
    about = f"{letter.position}  {_shown_key(stored.key)}"
    note = "  (sent again)" if stored.is_sent else ""
    return f"{letter.reason:<16}  {about}  {letter.detail}{note}"


def _shown_key(key: bytes | None) -> str:
    """Give a key as one word of a line. An empty key, or a key that is not printable, is in quotes."""
    if key is None:
        return "no key"
    text = key.decode("utf-8", "backslashreplace")
    return text if text.isprintable() and text else repr(text)


def _shown_value(value: bytes | None) -> str:
    if value is None:
        return "no value"
    text = value[:MAX_SHOWN_BYTES].decode("utf-8", "backslashreplace")
    return f"{text} ... ({len(value)} bytes)" if len(value) > MAX_SHOWN_BYTES else text
