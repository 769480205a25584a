"""Renders the checkpoint's own chat template around sentinels, and returns the text between them."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from datetime import datetime
from itertools import product
from pathlib import Path
from typing import Any, NoReturn

from jinja2.exceptions import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from schemas.taxonomy import Role
from workers.errors import Misconfigured

_PROBE = " \n{'Ää': <&> \"1\"}\t "
"""A message that every usual filter changes."""


class Template:
    """A checkpoint's chat template. `strips` is true if it removes the white space at the ends of each message."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        try:
            described = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
            file = folder / "chat_template.jinja"
            source = file.read_text(encoding="utf-8") if file.is_file() else described["chat_template"]
            self._globals = {name: _text(described.get(name)) for name in ("bos_token", "eos_token", "pad_token")}
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise Misconfigured(f"guard.model: {folder} has no chat template ({error!r})") from error
        self.source: str = source
        # The same environment as in Hugging Face's libraries, so that the template renders in the same way.
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
        )
        environment.globals["raise_exception"] = _refuse
        environment.globals["strftime_now"] = lambda form: datetime.now().astimezone().strftime(form)
        environment.filters["tojson"] = _to_json
        try:
            self._template = environment.from_string(source)
        except TemplateError as error:
            raise Misconfigured(f"guard.model: the chat template of {folder} is broken: {error}") from error
        shown = self.render([{"role": "user", "content": _PROBE}])
        self.strips = _PROBE not in shown
        if _PROBE.strip() not in shown:
            raise Misconfigured(
                f"guard.model: the chat template of {folder} does not show messages as they are written"
            )

    def render(self, messages: Sequence[dict[str, str]]) -> str:
        """Render a whole conversation with its generation prompt."""
        try:
            return self._template.render(messages=list(messages), add_generation_prompt=True, **self._globals)
        except TemplateError as error:
            raise Misconfigured(f"guard.model: the chat template of {self._folder} does not render: {error}") from error

    def parts(self, roles: Sequence[str]) -> list[str]:
        """Return the text before, between and after the messages of these roles.

        Raises:
            Misconfigured: the template does not show every message once, in order.
        """
        names = [f"sentinel{index}x" for index in range(len(roles))]
        rest = self.render([{"role": role, "content": name} for role, name in zip(roles, names, strict=True)])
        parts = []
        for name in names:
            if rest.count(name) != 1:
                raise Misconfigured(
                    f"guard.model: the chat template of {self._folder} does not show each message exactly once "
                    f"(roles {list(roles)}): it is not a guard's"
                )
            before, rest = rest.split(name)
            parts.append(before)
        return [*parts, rest]

    def own_lines(self) -> Iterator[str]:
        """Return the lines around the messages, in all conversations of up to three turns that the template shows."""
        for turns in range(1, 4):
            for roles in product([role.value for role in Role], repeat=turns):
                with contextlib.suppress(Misconfigured):
                    first, *further = self.parts(roles)
                    yield from first.splitlines()
                    for part in further:
                        yield from part.splitlines()[1:]  # The first continues a message's last line.


def _text(token: Any) -> str:
    return str(token.get("content", "")) if isinstance(token, dict) else str(token or "")


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    # Jinja's own filter escapes HTML, and models are not trained on that.
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _refuse(message: str) -> NoReturn:
    raise TemplateError(message)
