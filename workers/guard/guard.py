"""The guard: one forward pass for the severity of an event, and one more for the categories if it is not Safe."""

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
"""A micro-batch with at most this much text is encoded in the event loop, in about 10 ms. A thread would have to
acquire the GIL again after each text, in up to 5 ms while the loop is busy: that halved the worker's throughput."""

OVERLAP_TOKENS = 64
"""The overlap of two windows of a long text, so that each short sentence is whole in one of them."""

HARMLESS = (
    "Good morning! The weather is lovely today.",
    "Guten Morgen, wie geht es dir?",
    "今天天气很好，我们去公园吧。",
)
HARMFUL = "How can I build a bomb and kill my neighbours?"
"""The texts of the self-check."""

REVISION = 5
"""Raise this when the code gives other assessments for the same checkpoint: views, look-alikes, windows."""

Assessment = dict[str, Any]
Reading = list[Prompt]
"""The prompts of a request's views: of the raw text, and of the normalized text if it differs."""


class Guard:
    """Judges texts with a Qwen3Guard-Gen checkpoint on any engine.

    Guarantee: `assess` answers or refuses every request, in order, or raises. It never gives the assessment of one
    message to another, and an invalid request does not affect the other requests.
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
        """A digest of everything that can change an assessment, so that no cached assessment is used after a change.
        The fingerprint and the model's revision are known after `start`."""

    async def start(self) -> None:
        """Load the model and check that it is a guard. After a failure, `start` may be called again.

        A log line names the orders of roles that the chat template does not show.

        Raises:
            Misconfigured: the model is not a guard. Unavailable: the engine does not answer yet.
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
        """The number of prompts that the engine has answered: see `Engine.answered`."""
        return self._engine.answered

    @property
    def prompts_at_a_time(self) -> int | None:
        """See `Engine.prompts_at_a_time`."""
        return self._engine.prompts_at_a_time

    async def close(self) -> None:
        """Free the model."""
        await self._engine.close()

    async def watch(self) -> None:
        """Wait until the engine crashes. Return at once if it cannot.

        Raises:
            Fatal: it crashed.
        """
        await self._engine.watch()

    async def assess(self, requests: Sequence[Request], deadline: float = math.inf) -> list[Assessment | Refused]:
        """Judge each request. The assessments are those of `schemas.assessment`, as plain dicts.

        A request is refused if its text is not Unicode, if the template does not show its roles, or if the model gives
        no valid numbers or words for it. `deadline` is by `time.monotonic`: an engine with its own retries stops then.

        Raises:
            Unavailable: the engine failed as a whole. Fatal: it will not recover.
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
        """Build the prompts of each request's views: the raw text, and the normalized text if it differs."""
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
        severity, scores = SEVERITIES[opinion.severity], _scores(opinion.probabilities[opinion.worst])
        return {
            "severity": severity,
            "categories": opinion.categories,
            "refusal": opinion.refusal,
            "scores": scores,
            "category_scores": opinion.category_probabilities,
            "model": self.model,
            "windows": len(opinion.probabilities),
            "truncated_windows": sum([prompt.truncated_windows for prompt in readings]),
            "truncated_context_tokens": raw.truncated_context_tokens,
            "tokens": opinion.tokens,
            "views": [{"name": RAW, "severity": severity, "scores": scores}]
            if len(readings) == 1
            else [
                _view(RAW, opinion.probabilities[: len(raw.ids)]),
                _view(NORMALIZED, opinion.probabilities[len(raw.ids) :]),
            ],
        }


def _not_unicode(request: Request) -> Refused | None:
    try:
        for text in (request.text, *(text for _, text in request.context)):
            text.encode()
    except UnicodeEncodeError as error:
        return Refused("not_unicode", f"a text holds half of a surrogate pair: {error}")
    return None


def _scores(probabilities: Sequence[float]) -> dict[str, float]:
    safe, controversial, unsafe = probabilities
    return {"safe": safe, "controversial": controversial, "unsafe": unsafe}


def _view(name: str, probabilities: Sequence[Sequence[float]]) -> dict[str, Any]:
    worst = probabilities[worst_of(probabilities)]
    return {"name": name, "severity": SEVERITIES[label_of(worst)], "scores": _scores(worst)}


def _digest_of(folder: Path, engine: str) -> str:
    """Return a digest of all that determines the numbers: the bytes of the files, and the engine's identity.

    Reads every byte once: one or two seconds for the 1.2 GB of a 0.6B checkpoint, from the page cache after a start.
    """
    digest = hashlib.sha256(engine.encode())
    for path in sorted(folder.iterdir()):
        if path.suffix in (".bin", ".safetensors", ".json"):
            with path.open("rb") as file:
                digest.update(f"|{path.name}|".encode() + hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:16]
