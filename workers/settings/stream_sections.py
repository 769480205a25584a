"""The settings of streams: the model that judges answers while they are written, and the bounds of streams."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from workers.settings.section import Section


class Streams(Section):
    """`guardline worker streams` and the streams of `guardline gateway`: see docs/streams.md."""

    engine: Literal["onnxruntime", "transformers", "vllm"] = "onnxruntime"
    """`onnxruntime`, `vllm` or `transformers`: see docs/engines.md#stream-engines"""
    model: str = Field("nano-stream", min_length=1)
    """the bundled model for trials, or the folder of a checkpoint of the kind of Qwen3Guard-Stream in the engine's
    format"""
    threads: int | None = Field(None, ge=1)
    """CPU threads of the engine"""
    max_sessions: int = Field(32, ge=1)
    """how many streams have a session of the engine at a time. Streams that wait for their sender give theirs to
    others, so more streams may be open"""
    max_open: int = Field(10_000, ge=1)
    """how many streams a worker knows at a time, of about 50 kB each. What comes above cannot be judged:
    `on_unavailable` decides"""
    max_tokens: int = Field(4_096, ge=128)
    """the most tokens of a session. A longer stream goes on in a new session, with its last turn of the user and its
    last tokens. With `enforce_eager: false`, vLLM compiles anew at 8,192 and stops for a minute"""
    anchor_tokens: int = Field(512, ge=0)
    """how many of the answer's last tokens a new session begins with. At most a quarter of `streams.max_tokens`"""
    append_within_s: float = Field(10, gt=0)
    """how long a part of a stream waits for its judgement, retries included. Then the policy's `on_unavailable` decides
    """
    idle_s: float = Field(300, gt=0)
    """a stream without a record for this time has expired, by the records' timestamps"""
    max_age_s: float = Field(3_600, gt=0)
    """a stream has expired this long after its first record, by the records' timestamps. The topic
    `topics.stream_sessions` keeps records at least this long"""
    vllm: dict[str, Any] = {}
    """with `vllm`: vLLM's engine arguments, such as `gpu_memory_utilization`"""

    @field_validator("vllm")
    @classmethod
    def _refuse_code(cls, arguments: dict[str, Any]) -> dict[str, Any]:
        if arguments.get("trust_remote_code"):
            raise ValueError(
                "streams.vllm: trust_remote_code would let Python code of the checkpoint run, and the model class of "
                "streams is Guardline's own: leave it out"
            )
        return arguments

    @model_validator(mode="after")
    def _check_bounds(self) -> Streams:
        if self.anchor_tokens > self.max_tokens // 4:
            raise ValueError(
                f"streams.anchor_tokens ({self.anchor_tokens}) must be at most a quarter of streams.max_tokens "
                f"({self.max_tokens}): a new session also holds the turn of the user and what follows"
            )
        if self.idle_s > self.max_age_s:
            raise ValueError(
                f"streams.idle_s ({self.idle_s:g}) must be at most streams.max_age_s ({self.max_age_s:g}): a stream "
                "cannot be idle for longer than it lives"
            )
        return self
