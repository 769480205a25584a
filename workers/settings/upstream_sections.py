"""The settings of the gateway's proxy: the model server behind it, and how its answers are judged."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator

from workers.settings import urls
from workers.settings.section import File, Section


class Upstream(Section):
    """The model server behind the gateway's proxy: see docs/gateway.md#the-proxy."""

    url: str = ""
    """a server with OpenAI's API, such as `http://vllm:8000`, without `/v1`. Empty: the gateway is no proxy"""
    key_file: File = None
    """the absolute path of a file that holds the key which the gateway sends to the server. None: it sends no key"""
    pass_authorization: bool = False
    """whether the client's header `Authorization` is passed on to the model server. Only with `gateway.open`: a key of
    `gateway.keys` never leaves the gateway"""
    ca_file: File = None
    """with `https`: the certificate authority, if it is your own"""
    connect_s: float = Field(5, gt=0)
    """how long the gateway waits for a connection to the model server"""
    first_byte_s: float = Field(120, gt=0)
    """how long the gateway waits for the first byte of an answer"""
    between_chunks_s: float = Field(30, gt=0)
    """how long the gateway waits for the next bytes of a stream"""
    answer_s: float = Field(900, gt=0)
    """how long a whole answer may take"""
    max_connections: int = Field(256, ge=1)
    """how many calls of the model server may run at a time. A further request waits `connect_s`, and is then refused"""
    max_event_bytes: int = Field(4_194_304, ge=4_096)
    """the largest event of a stream. A larger one ends the stream with an error"""
    max_answer_bytes: int = Field(16_777_216, ge=4_096)
    """the largest answer that is not a stream"""

    continues_chats: bool = False
    """whether the model server goes on with a last message of the assistant if a request says
    `continue_final_message`, as vLLM and SGLang do. Then `gateway.proxy.retries` also helps after a part of a streamed
    answer of `/v1/chat/completions` was shown"""

    @field_validator("url")
    @classmethod
    def _check_url(cls, url: str) -> str:
        if url:
            try:
                urls.check_server(url)
            except ValueError as error:
                raise ValueError(f"gateway.upstream.url: {error}") from None
        if url.rstrip("/").endswith("/v1"):
            raise ValueError("gateway.upstream.url ends in /v1: leave that out, the gateway adds it")
        return url.rstrip("/")

    @field_validator("key_file")
    @classmethod
    def _check_file(cls, file: Path | None) -> Path | None:
        if file is not None and not file.is_absolute():
            raise ValueError("gateway.upstream.key_file: has to be an absolute path, such as /run/secrets/upstream")
        return file


class Proxy(Section):
    """How the gateway's proxy judges: see docs/gateway.md#the-proxy."""

    max_choices: int = Field(8, ge=1, le=128)
    """the most answers that one request may ask for (`n`). Each takes a session of the guard"""
    judge_system: bool = False
    """whether messages of the roles `system` and `developer` are judged as turns of the user. Set it where the users
    of the platform can write such messages"""
    other_parts: Literal["refuse", "pass"] = "refuse"
    """what happens with a message that has parts other than text, such as an image. `pass`: its text is judged, and
    the rest reaches the model server without a judgement"""
    on_cut_prompt: Literal["error", "completion"] = "error"
    """the answer to a prompt that the policy cuts. `error`: status 400 with the code `content_filter`. `completion`: an
    answer with the policy's replacement text and `finish_reason: content_filter`"""
    retries: int = Field(0, ge=0, le=10)
    """how often the model server is asked again for an answer that the policy cut. Only for requests for one answer,
    and in a stream only for what the client has not seen yet: see docs/gateway.md#another-answer"""
    max_waiting_chars: int = Field(65_536, ge=1_024)
    """how many characters of one answer may wait to be judged. Beyond it, the gateway reads no more from upstream"""
    keep_alive_s: float = Field(15, gt=0)
    """how often the gateway sends a comment to a client while no text may be shown"""
