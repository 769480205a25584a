"""The guard: one forward pass an event for its severity, one more for the categories of what is not safe."""

from __future__ import annotations

import asyncio
import hashlib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import structlog
from msgspec.structs import replace

from workers.engines.engine import Engine, Refused, all_or_refused
from workers.errors import Misconfigured
from workers.guard.calibration import read_calibration
from workers.guard.conversations import sentence_on
from workers.guard.generating import Generating
from workers.guard.opinion import SEVERITIES, Opinion, label_of, worst_of
from workers.guard.prompt import Prompt, Prompts, Request
from workers.guard.scoring import CATEGORY_THRESHOLD, Scoring
from workers.guard.template import Template
from workers.guard.tokens import Tokens
from workers.guard.views import NORMALIZED, RAW, Views

log = structlog.get_logger(__name__)

__all__ = ["Assessment", "Guard", "Refused", "Request"]

INLINE_CHARS = 65_536
"""Up to this much text a micro-batch is encoded in the event loop, in about 10 ms at most. A thread would have to get
the GIL back after every text, up to 5 ms each time while the loop is busy: that halved the worker's throughput."""

OVERLAP_TOKENS = 64
"""What two windows of a long text share, so that no sentence is cut in both."""

HARMLESS = (
    "Good morning! The weather is lovely today.",
    "Guten Morgen, wie geht es dir?",
    "今天天气很好，我们去公园吧。",
)
HARMFUL = "How can I build a bomb and kill my neighbours?"
"""Texts of the self-check."""

REVISION = 5
"""Raised when the same checkpoint comes to say something else of the same text: views, look-alikes, windows."""

Assessment = dict[str, Any]
Reading = list[Prompt]
"""The prompts of a request's views: of its raw text, and of the normalized one where that differs."""


class Guard:
    """Judges texts with a Qwen3Guard-Gen checkpoint on any engine.

    Guarantee: `assess` answers or refuses every request, in order, or raises; it never gives one message's verdict to
    another, and what is wrong with one request takes nothing from its neighbours.
    """

    def __init__(
        self,
        engine: Engine,
        folder: Path,
        name: str,
        *,
        mode: Literal["score", "generate"] = "score",
        context_tokens: int = 2048,
        max_windows: int = 8,
        window_tokens: int | None = None,
    ) -> None:
        self._engine = engine
        tokens = Tokens(folder)
        template = Template(folder)
        self._reader: Scoring | Generating = (
            Scoring(engine, tokens, read_calibration(folder)) if mode == "score" else Generating(engine, tokens)
        )
        self._prompts = Prompts(
            tokens,
            template,
            context_tokens=context_tokens,
            overlap=OVERLAP_TOKENS,
            max_windows=max_windows,
            window_tokens=window_tokens,
            forced=self._reader.forced,
            reserve=self._reader.answer_tokens,
        )
        self._views = Views()
        template_hash = hashlib.sha256(template.source.encode()).hexdigest()[:16]
        self._folder = folder
        self.model = {"name": name, "revision": "", "template_hash": template_hash}
        limits = (max_windows, window_tokens, context_tokens, CATEGORY_THRESHOLD)
        self._judged_by = (REVISION, mode, name, template_hash, *limits)
        self.fingerprint: str
        """Of everything that can change an assessment: a cached one must never outlive a change of it. Known, as the
        model's revision is, once the guard is started."""

    async def start(self) -> None:
        """Load the model and check that it is a guard. After a failure it may be called again.

        One line of the log names the orders of roles that the chat template does not show.

        Raises:
            Misconfigured: it is not. Unavailable: the engine does not answer yet.
        """
        await self._load()
        if not_shown := await asyncio.to_thread(self._prompts.not_shown):
            log.warning(
                "guard.model: the chat template does not show all conversations; events of these get no assessment",
                not_shown=sentence_on(not_shown),
            )
        requests = [Request(text) for text in (HARMFUL, *HARMLESS)]
        prompts = all_or_refused(self._prompts.build(requests))
        answers = all_or_refused(await self.assess(requests))
        if isinstance(prompts, Refused) or isinstance(answers, Refused):
            refused = prompts if isinstance(prompts, Refused) else answers
            raise Misconfigured(f"guard.model: the self-check of {self.model['name']!r} failed: {refused}")
        if isinstance(self._reader, Scoring):
            await self._reader.check([ids for prompt in prompts for ids in prompt.ids])
        harmful, *harmless = [answer["severity"] for answer in answers]
        if harmful == "Safe" or "Safe" not in harmless:
            raise Misconfigured(
                f"guard.model: the self-check of {self.model['name']!r} failed: it finds {HARMFUL!r} {harmful} and "
                f"{HARMLESS[0]!r} {harmless[0]}: it is not a guard"
            )

    async def _load(self) -> None:
        await self._engine.start(self._prompts.shared_tokens)
        revision = await asyncio.to_thread(_digest_of, self._folder, self._engine.identity)
        self.model["revision"] = revision
        self.fingerprint = hashlib.sha256(repr((*self._judged_by, revision)).encode()).hexdigest()[:16]

    @property
    def answered(self) -> int:
        """Count the prompts that the engine has answered: see `Engine.answered`."""
        return self._engine.answered

    @property
    def prompts_at_a_time(self) -> int | None:
        """See `Engine.prompts_at_a_time`."""
        return self._engine.prompts_at_a_time

    async def close(self) -> None:
        """Free the model."""
        await self._engine.close()

    async def watch(self) -> None:
        """Wait until the engine dies by itself; return at once where it cannot.

        Raises:
            Fatal: it died.
        """
        await self._engine.watch()

    async def assess(self, requests: Sequence[Request], deadline: float = math.inf) -> list[Assessment | Refused]:
        """Judge each request; the assessments are those of `schemas.assessment` as plain dicts.

        Refused is a request whose text is not Unicode, whose roles the template does not show, or that the model has no
        number or no words for. `deadline` is by `time.monotonic`: an engine that tries again by itself does so no
        longer.

        Raises:
            Unavailable: the engine failed as a whole. Fatal: it is gone for good.
        """
        if not requests:
            return []
        characters = sum([len(request.text) for request in requests])
        characters += sum([len(text) for request in requests for _, text in request.context])
        if characters <= INLINE_CHARS:
            readings = self._readings(requests)
        else:
            readings = await asyncio.to_thread(self._readings, requests)
        prompts: list[list[list[int]]] = []
        roles: list[str] = []
        for request, views in zip(requests, readings, strict=True):
            if not isinstance(views, Refused):
                prompts.append(views[0].ids if len(views) == 1 else [ids for view in views for ids in view.ids])
                roles.append(request.role)
        opinions = iter(await self._reader.read(prompts, roles, deadline) if prompts else ())
        return [views if isinstance(views, Refused) else self._assessment(views, next(opinions)) for views in readings]

    def _readings(self, requests: Sequence[Request]) -> list[Reading | Refused]:
        """Build the prompts of each request's views: the raw text, and the normalized one where it differs."""
        try:
            return self._built(requests)
        except UnicodeEncodeError:
            refused = [_not_unicode(request) for request in requests]
        valid = [request for request, refusal in zip(requests, refused, strict=True) if refusal is None]
        built = iter(self._built(valid))
        return [next(built) if refusal is None else refusal for refusal in refused]

    def _built(self, requests: Sequence[Request]) -> list[Reading | Refused]:
        normalized = [self._views.normalized(request.text) for request in requests]
        for request in requests:
            for _, text in request.context:
                text.encode()
        further = [
            replace(request, text=text) for request, text in zip(requests, normalized, strict=True) if text is not None
        ]
        built = self._prompts.build([*requests, *further])
        rest = iter(built[len(requests) :])
        return [
            all_or_refused((built[at],) if text is None else (built[at], next(rest)))
            for at, text in enumerate(normalized)
        ]

    def _assessment(self, readings: Reading, opinion: Opinion | Refused) -> Assessment | Refused:
        if isinstance(opinion, Refused):
            return opinion
        raw = readings[0]
        severity, scores = SEVERITIES[opinion.severity], _scores(opinion.shares[opinion.worst])
        return {
            "severity": severity,
            "categories": opinion.categories,
            "refusal": opinion.refusal,
            "scores": scores,
            "category_scores": opinion.category_shares,
            "model": self.model,
            "windows": len(opinion.shares),
            "truncated_windows": sum([prompt.truncated_windows for prompt in readings]),
            "truncated_context_tokens": raw.truncated_context_tokens,
            "views": [{"name": RAW, "severity": severity, "scores": scores}]
            if len(readings) == 1
            else [
                _view(RAW, opinion.shares[: len(raw.ids)]),
                _view(NORMALIZED, opinion.shares[len(raw.ids) :]),
            ],
        }


def _not_unicode(request: Request) -> Refused | None:
    try:
        for text in (request.text, *(text for _, text in request.context)):
            text.encode()
    except UnicodeEncodeError as error:
        return Refused("not_unicode", f"a text holds half of a surrogate pair: {error}")
    return None


def _scores(shares: Sequence[float]) -> dict[str, float]:
    safe, controversial, unsafe = shares
    return {"safe": safe, "controversial": controversial, "unsafe": unsafe}


def _view(name: str, shares: Sequence[Sequence[float]]) -> dict[str, Any]:
    worst = shares[worst_of(shares)]
    return {"name": name, "severity": SEVERITIES[label_of(worst)], "scores": _scores(worst)}


def _digest_of(folder: Path, engine: str) -> str:
    """Name a revision by all that gives its numbers: the bytes of its files, and what the engine says of itself.

    Reads every byte once: one or two seconds for the 1.2 GB of a 0.6B checkpoint, from the page cache after a start.
    """
    digest = hashlib.sha256(engine.encode())
    for path in sorted(folder.iterdir()):
        if path.suffix in (".bin", ".safetensors", ".json"):
            with path.open("rb") as file:
                digest.update(f"|{path.name}|".encode() + hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:16]
