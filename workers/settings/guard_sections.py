"""The settings of the guard: its model, its engine, and the servers that may run it."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, SecretStr, field_validator, model_validator

from workers.settings import urls
from workers.settings.section import File, Section


class OpenAI(Section):
    """Servers of vLLM or SGLang."""

    urls: list[str] = []
    """with `openai`: the URLs of the vLLM or SGLang servers"""
    model: str | None = None
    """the name under which the servers serve the model; optional where they serve only one"""
    api_key: SecretStr = SecretStr("")
    """the bearer token that the servers require. White space around it, such as the line break at the end of a file, is
    removed"""
    ca_file: File = None
    """with `https`: the certificate authority, if it is your own"""
    cert_file: File = None
    """the client certificate, if the servers require one"""
    key_file: File = None
    """the key of the client certificate, if `cert_file` does not hold it"""
    timeout_s: float | None = Field(None, gt=0)
    """timeout of one whole request, including its time in the server's queue. With several servers it must be below
    `worker.unavailable_after_s`; a third of `worker.unavailable_after_s` is best"""

    @property
    def request_timeout_s(self) -> float:
        """The time-out of a request: a hung server must leave an event's 30 s to two others, where there are others.

        The only server has all of it: at 40 prompts/s a third was too short for what waits in a server's own queue.
        """
        return self.timeout_s or (30 if len(self.urls) <= 1 else 10)

    @field_validator("urls")
    @classmethod
    def _check_urls(cls, servers: list[str]) -> list[str]:
        for number, url in enumerate(servers, 1):
            try:
                urls.check_server(url)
            except ValueError as error:
                raise ValueError(f"guard.openai.urls: number {number} {error}") from None
        return servers

    @field_validator("api_key")
    @classmethod
    def _check_key(cls, api_key: SecretStr) -> SecretStr:
        key = api_key.get_secret_value().strip()
        if not (key.isascii() and key.isprintable()):
            # Never the key itself, which the client would print.
            raise ValueError("guard.openai.api_key: holds a character that is not printable ASCII")
        return SecretStr(key)


class Guard(Section):
    """The model, and the engine that runs it."""

    engine: Literal["ctranslate2", "transformers", "vllm", "openai"] = "ctranslate2"
    """`ctranslate2`, `vllm`, `openai` or `transformers`: see docs/engines.md"""
    model: str = Field("guard-nano", min_length=1)
    """the bundled model for trials, the folder of a checkpoint in the engine's format, or a model on the Hugging Face
    hub with its commit: `NAME@COMMIT`"""
    mode: Literal["score", "generate"] = "score"
    """`score` takes one forward pass for the severity. `generate` lets the model generate its answer, as the model card
    describes: slower, and without probabilities"""
    threads: int | None = Field(None, ge=1)
    """CPU threads of one forward pass"""
    max_windows: int = Field(8, ge=1)
    """at most this many windows of a long text are judged; the worst window counts"""
    context_tokens: int = Field(2048, ge=64)
    """the largest prompt in tokens, with the template. At least 64"""
    window_tokens: int | None = Field(None, ge=32)
    """the size of one window of a long text in tokens, from 32 to `guard.context_tokens`: see
    docs/guard.md#smaller-windows"""
    vllm: dict[str, Any] = {}
    """with `vllm`: vLLM's engine arguments, such as `tensor_parallel_size`"""
    allow_remote_code: bool = False
    """`true` permits `trust_remote_code` in `guard.vllm`, which is refused otherwise"""
    openai: OpenAI = OpenAI()

    @model_validator(mode="after")
    def _check_window(self) -> Guard:
        if self.window_tokens is not None and self.window_tokens > self.context_tokens:
            raise ValueError(
                f"guard.window_tokens ({self.window_tokens}) must be at most guard.context_tokens "
                f"({self.context_tokens}): a window is a part of a prompt. Leave it out to fill the prompt"
            )
        return self
