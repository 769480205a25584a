"""onnxruntime on a CPU: the bundled engine for streams. It runs the graph of `stream_graph`, many sessions in a step.

The keys and values of all sessions are one array for each layer, which the graph changes in place. Nothing of it is
ever copied. A session costs the memory of its tokens, or of its window if the checkpoint has one.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workers.engines.lengths import check_length
from workers.engines.stream import Floats
from workers.engines.stream_checkpoint import StreamConfig
from workers.engines.stream_folder import MODEL, read_folder
from workers.engines.stream_graph import CACHE_KINDS, ONNXRUNTIME, cache_names
from workers.engines.stream_in_process import PIECE_TOKENS, InProcessStreamEngine, Piece
from workers.errors import Misconfigured, to_install

SMALL_HIDDEN = 512
"""A model narrower than this runs on one core: to wake a second one for each product takes longer than it saves."""


MAX_BINDINGS = 256
"""Ranges of slots that are bound at a time. There are half as many ranges as slots squared."""


class OnnxStreamEngine(InProcessStreamEngine):
    """Runs one folder that `guardline model convert` made.

    `threads` cores run a step: all of them by default, and one for a small model.
    """

    def __init__(
        self, folder: Path, *, max_sessions: int = 64, max_tokens: int = 8_191, threads: int | None = None
    ) -> None:
        super().__init__("onnxruntime", folder, max_sessions=max_sessions, max_tokens=max_tokens)
        self._threads = threads
        self._types = ""

    @property
    def identity(self) -> str:
        """See `StreamEngine.identity`."""
        return f"{self._name}{self._types}"

    def _load(self) -> tuple[StreamConfig, Any]:
        try:
            import onnxruntime
        except ImportError as error:
            raise Misconfigured(
                f"streams.engine: 'onnxruntime' needs the extra: {to_install('streams')} ({error})"
            ) from error
        _check_version(onnxruntime)
        config, weights, cache = read_folder(self._folder)
        check_length("streams.max_tokens", self._max_tokens, self._folder, config.positions)
        self._types = f" {weights}, cache {cache}"
        threads = self._threads or (1 if config.hidden < SMALL_HIDDEN else len(os.sched_getaffinity(0)))
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 4  # An error is raised as well; a log line of its own would not be JSON.
        # Threads that wait actively for the next step would take the cores of the rest of the worker.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            session = onnxruntime.InferenceSession(
                str(self._folder / MODEL), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # onnxruntime has an error of its own for each cause.
            raise Misconfigured(f"streams.model: onnxruntime cannot load {self._folder / MODEL}: {error}") from error
        cached = np.int8 if cache == "int8" else np.float32
        return config, _Model(session, config, self._max_sessions, self._max_tokens, cached)

    def _step(self, model: Any, pieces: Sequence[Piece]) -> Floats:
        return np.asarray(model.run(pieces))


def largest_cached(folder: Path, conversations: Sequence[Sequence[int]]) -> dict[tuple[int, str], float]:
    """Return the largest absolute key and value of each layer in these conversations, with a cache in float32."""
    longest = max(len(ids) for ids in conversations)
    _, model = OnnxStreamEngine(folder, max_sessions=1, max_tokens=longest)._load()
    largest = dict.fromkeys(model.caches, 0.0)
    for ids in conversations:
        for start in range(0, len(ids), PIECE_TOKENS):
            model.run([Piece(0, start, list(ids[start : start + PIECE_TOKENS]))])
        for name, cache in model.caches.items():
            largest[name] = max(largest[name], float(np.abs(cache).max()))
    return largest


def _check_version(onnxruntime: Any) -> None:
    """Refuse an onnxruntime whose attention cannot take sessions of unequal lengths.

    It would say so only in the first step with two sessions.
    """
    schemas = onnxruntime.capi.onnxruntime_pybind11_state.get_all_operator_schema()
    for schema in schemas:
        if schema.name == "GroupQueryAttention" and schema.domain == ONNXRUNTIME:
            names = {value.name for value in schema.inputs} | set(schema.attributes)
            if {"query_seqlens", "sliding_window_cache"} <= names:
                return
    raise Misconfigured(
        f"streams.engine: onnxruntime {onnxruntime.__version__} is too old: its GroupQueryAttention has no "
        f"query_seqlens; 1.32 has it: {to_install('streams')}"
    )


def _check_memory(needed: int, sessions: int, tokens: int) -> None:
    """Refuse caches that do not fit into the memory.

    The system gives the memory only when the sessions grow, and would then kill the process with all sessions.
    """
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    with suppress(OSError, ValueError):  # No control group, or one without a limit ("max").
        memory = min(memory, int(Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii")))
    if needed > memory:
        raise Misconfigured(
            f"streams.max_sessions: {sessions} sessions of {tokens} tokens (streams.max_tokens) need "
            f"{needed / 1e9:.1f} GB for keys and values, and the memory has {memory / 1e9:.1f} GB"
        )


class _Model:
    def __init__(self, session: Any, config: StreamConfig, sessions: int, tokens: int, cached: Any) -> None:
        self._session = session
        # The window moves in twice its size: with less, it moves more often, and a token takes longer.
        capacity = tokens if config.window is None else config.window + max(config.window, PIECE_TOKENS)
        shape = (sessions, config.kv_heads, capacity, config.head_width)
        _check_memory(2 * config.layers * math.prod(shape) * np.dtype(cached).itemsize, sessions, tokens)
        # The system gives memory to zeros only when something is written to them.
        self.caches = {(layer, kind): np.zeros(shape, cached) for layer in range(config.layers) for kind in CACHE_KINDS}
        angles = np.arange(tokens)[:, None] * config.theta ** (-np.arange(0, config.head_width, 2) / config.head_width)
        self._fixed = {
            "cos": _value(np.cos(angles).astype(np.float32)),
            "sin": _value(np.sin(angles).astype(np.float32)),
        }
        self._bindings: dict[tuple[int, int], Any] = {}

    def run(self, pieces: Sequence[Piece]) -> Floats:
        """Return the outputs of the heads at all tokens of the pieces, (n, 23)."""
        first = min(piece.slot for piece in pieces)
        end = max(piece.slot for piece in pieces) + 1
        lengths = [len(piece.ids) for piece in pieces]
        starts = np.cumsum([0, *lengths])
        longest = max(lengths)
        places = np.zeros((end - first, longest), np.int64)
        last = np.zeros(end - first, np.int32)
        counts = np.zeros(end - first, np.int32)
        origins = np.empty(starts[-1], np.int64)
        for piece, start, length in zip(pieces, starts, lengths, strict=False):
            row = piece.slot - first
            places[row, :length] = np.arange(start, start + length)
            origins[start : start + length] = np.arange(row * longest, row * longest + length)
            last[row] = piece.start + length - 1
            counts[row] = length
        binding = self._binding(first, end)
        for name, values in (
            ("ids", np.concatenate([np.asarray(piece.ids, np.int64) for piece in pieces])),
            ("places", places),
            ("origins", origins),
            ("last_positions", last),
            ("total", np.array(last.max() + 1, np.int32)),
            ("counts", counts),
        ):
            binding.bind_cpu_input(name, values)
        binding.bind_output("outputs", "cpu")
        self._session.run_with_iobinding(binding)
        outputs: Floats = binding.get_outputs()[-1].numpy()
        return outputs

    def _binding(self, first: int, end: int) -> Any:
        """Bind the caches of these slots, once: the same memory as input and as output."""
        if (first, end) not in self._bindings:
            if len(self._bindings) >= MAX_BINDINGS:
                self._bindings.clear()
            binding = self._session.io_binding()
            for name, value in self._fixed.items():
                binding.bind_ortvalue_input(name, value)
            for (layer, kind), cache in self.caches.items():
                before, after = cache_names(layer, kind)
                value = _value(cache[first:end])
                binding.bind_ortvalue_input(before, value)
                binding.bind_ortvalue_output(after, value)
            self._bindings[first, end] = binding
        return self._bindings[first, end]


def _value(values: NDArray[Any]) -> Any:
    """Make a value of onnxruntime that shares the array's memory."""
    import onnxruntime

    return onnxruntime.OrtValue.ortvalue_from_numpy(values, "cpu", 0)
