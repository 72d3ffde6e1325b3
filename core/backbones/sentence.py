"""A frozen, pre-trained sentence encoder: questions to task embeddings by meaning.

all-MiniLM-L6-v2 (Wang et al., 2020; Reimers and Gurevych, 2019) in PyTorch's own Transformer. It has learned from a
billion pairs of sentences, and is a "pre-trained language model" as the paper means it (Section 2.2).
`train/encoders/sentence.py` makes its files.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from weakref import WeakValueDictionary

import torch
from tokenizers import BertWordPieceTokenizer
from torch import Tensor, nn
from torch.nn import functional as F

from ..config import from_dict
from ..files import parse_json
from ..release.checkpoint import load_into, load_model
from .frozen import digest_of, no_tf32

CONFIG, VOCABULARY, WEIGHTS = "config.json", "vocab.txt", "encoder.safetensors"  # the weights are in numbered parts
KIND = "sentence_encoder"  # of the checkpoint
_BLOCK = 64  # neighbours in a row of a packed matrix that share a scale
_PEAK = ".peak"  # ends the name of a packed matrix's scales
_LARGEST, _MOST_LAYERS = 2**20, 64
_BATCH_TOKENS = 2048  # padding included; larger batches are no faster on a CPU


@dataclass(frozen=True)
class SentenceConfig:
    """What the encoder is made from, and its sizes."""

    model: str  # on the Hub
    source_sha256: str  # of its weights there
    licence: str
    vocabulary: int  # tokens
    positions: int
    width: int
    heads: int
    hidden: int  # of the feed-forward layers
    layers: int
    max_tokens: int  # of a text, the two that mark its ends included; the model was tuned with fewer than `positions`

    def __post_init__(self) -> None:
        sizes = (self.vocabulary, self.positions, self.width, self.heads, self.hidden, self.layers, self.max_tokens)
        if (
            min(sizes) < 1
            or max(sizes) > _LARGEST
            or self.layers > _MOST_LAYERS
            or self.width % self.heads
            or self.max_tokens > self.positions
        ):
            raise ValueError(
                f"sizes {sizes}; allowed: 1 to {_LARGEST}, a width that heads divide, up to {_MOST_LAYERS} layers, and "
                "max_tokens up to positions"
            )


class Tower(nn.Module):
    """Token ids to states. BERT's embedding of the text's number is part of `positions`: there is one text."""

    def __init__(self, config: SentenceConfig) -> None:
        """A tower without storage, which a state dict is to give it: initial values would take longer than loading."""
        super().__init__()
        meta, eps = torch.device("meta"), 1e-12
        self.words = nn.Embedding.from_pretrained(torch.empty(config.vocabulary, config.width, device=meta))
        self.positions = nn.Embedding.from_pretrained(torch.empty(config.positions, config.width, device=meta))
        self.norm = nn.LayerNorm(config.width, eps, device=meta)
        layer = nn.TransformerEncoderLayer(
            config.width, config.heads, config.hidden, 0.1, "gelu", eps, batch_first=True, device=meta
        )
        self.encoder = nn.TransformerEncoder(layer, config.layers, enable_nested_tensor=False)

    def states(self, ids: Tensor, padding: Tensor | None) -> Iterator[Tensor]:
        """States (B, L, width) of token ids (B, L): the normed embeddings, then after each layer. A layer runs when its
        states are asked for. `padding` (B, L) is true where there is no token."""
        x = self.norm(self.words(ids) + self.positions.weight[: ids.shape[1]])  # (B, L, width)
        yield x
        for layer in self.encoder.layers:
            x = layer(x, src_key_padding_mask=padding)
            yield x


class SentenceEncoder:
    """Texts to unit vectors: means over tokens of the states after one layer or several."""

    def __init__(self, config: SentenceConfig, tower: Tower, vocabulary: Sequence[str]) -> None:
        """Freeze the tower. `vocabulary` lists the tokens by their ids.

        Raises:
            ValueError: another number of tokens than the config says, or one of BERT's own is missing.
        """
        ids = {token: i for i, token in enumerate(vocabulary)}
        if len(ids) != config.vocabulary or len(vocabulary) != config.vocabulary:
            raise ValueError(f"{len(ids)} different tokens on {len(vocabulary)} lines, expected {config.vocabulary}")
        if missing := [token for token in ("[PAD]", "[UNK]", "[CLS]", "[SEP]") if token not in ids]:
            raise ValueError(f"there is no token {missing[0]}")
        self.config, self.vocabulary = config, vocabulary
        self.tower = tower.eval().requires_grad_(False)
        self.tokenizer = BertWordPieceTokenizer(ids, lowercase=True)

    @cached_property
    def identity(self) -> dict[str, str]:
        """All that embeddings depend on: the model's name, and a digest of its weights and its vocabulary."""
        digest = digest_of(self.tower.state_dict(), "\n".join(self.vocabulary))
        return {"model": self.config.model, "sha256": digest}

    @property
    def device(self) -> torch.device:
        return self.tower.words.weight.device

    def dim(self, layers: Sequence[int] = (6,)) -> int:
        """The size of an embedding made of these layers.

        Raises:
            ValueError: no layers, or one that the encoder does not have.
        """
        if not layers or not all(0 <= layer <= self.config.layers for layer in layers):
            raise ValueError(f"layers {tuple(layers)}; allowed: one or more of 0 to {self.config.layers}")
        return self.config.width * len(layers)

    @torch.no_grad()
    def encode(self, texts: Sequence[str], layers: Sequence[int] = (6,)) -> Tensor:
        """Unit vectors (B, width * len(layers)), float32, on the CPU.

        Of each layer (0: the normed input embeddings) the mean over tokens as a unit vector, in the order of `layers`,
        and all of them scaled alike. (6,) is the model's own sentence embedding. Layers after the highest do not run.

        Raises:
            ValueError: unknown layers, or a text of more than `max_tokens` tokens: nothing is cut.
        """
        result = torch.empty(len(texts), self.dim(layers))
        tokens = [self._tokens(text) for text in texts]
        with no_tf32():
            for rows in _batches([len(ids) for ids in tokens]):
                result[rows] = self._encode_batch([tokens[row] for row in rows], layers).cpu()
        return result

    def _tokens(self, text: str) -> list[int]:
        """Token ids of a text. One text at a time: the tokenizer's threads would warn in every process forked later."""
        text = text.encode("utf-8", "replace").decode("utf-8")  # halves of characters (lone surrogates) become "?"
        ids = self.tokenizer.encode(text).ids
        if len(ids) > self.config.max_tokens:
            raise ValueError(f"text of {len(ids)} tokens, {text[:60]!r} ...; allowed: {self.config.max_tokens}")
        return ids

    def _encode_batch(self, tokens: Sequence[list[int]], layers: Sequence[int]) -> Tensor:
        """`encode` for texts that go through the tower together, on its device."""
        rows = [torch.tensor(ids) for ids in tokens]
        ids = nn.utils.rnn.pad_sequence(rows, batch_first=True)  # (B, L)
        lengths = torch.tensor([len(row) for row in rows])
        padding = torch.arange(ids.shape[1]) >= lengths[:, None]  # (B, L)
        share = (~padding / lengths[:, None]).to(self.device)[:, None]  # (B, 1, L) of a token in its text's mean
        states = self.tower.states(ids.to(self.device), padding.to(self.device) if padding.any() else None)
        means = {}
        for layer, x in zip(range(max(layers) + 1), states, strict=False):
            if layer in layers:
                means[layer] = F.normalize((share @ x)[:, 0], dim=-1)  # (B, width)
        return torch.cat([means[layer] for layer in layers], dim=-1) / len(layers) ** 0.5


def _batches(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Texts that go through the tower together: neighbours in the order of length, which need little padding."""
    batch: list[int] = []
    for row in sorted(range(len(lengths)), key=lambda row: lengths[row]):
        if batch and (len(batch) + 1) * lengths[row] > _BATCH_TOKENS:
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


def load(directory: Path | str, device: torch.device | str = "cpu") -> SentenceEncoder:
    """The encoder of a directory with `config.json`, `vocab.txt` and weights.

    Raises:
        ValueError: a file is missing, damaged or does not go with the others; the message names it.
    """
    directory = Path(directory)
    try:
        config = from_dict(SentenceConfig, parse_json(_read(directory / CONFIG)))
    except ValueError as error:
        raise ValueError(f"sentence encoder {directory / CONFIG}: {error}") from None
    try:
        _, stored = load_model(directory / WEIGHTS, KIND)
        tower = Tower(config)
        load_into(tower, unpack(stored), str(directory / WEIGHTS), assign=True)
    except (FileNotFoundError, ValueError) as error:
        raise ValueError(f"sentence encoder {error}") from None
    try:
        vocabulary = _read(directory / VOCABULARY).removesuffix("\n").split("\n")
        return SentenceEncoder(config, tower.to(device), vocabulary)
    except Exception as error:  # the tokenizer's own have no kind
        raise ValueError(f"sentence encoder {directory / VOCABULARY}: {error}") from None


_loaded: WeakValueDictionary[tuple, SentenceEncoder] = WeakValueDictionary()  # by files and device


def shared(directory: Path, device: torch.device | str = "cpu") -> SentenceEncoder:
    """`load`, or the encoder that is in memory already, if the directory's files are still the same: questions and the
    photo tower's answers go through one."""
    files = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in sorted(directory.glob("*"))]
    key = (directory.resolve(), tuple(files), torch.device(device))
    found = _loaded.get(key)
    if found is None:
        found = _loaded[key] = load(directory, device)
    return found


def _read(path: Path) -> str:
    """Text of a file; a ValueError if there is none."""
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise ValueError(error.strerror) from None


def pack(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A tower's state dict with 8 bits for a weight of a matrix.

    64 neighbours in a row share the largest absolute value among them, in half precision under the matrix's name with
    ".peak": it is 127 steps. Vectors stay as they are, and so do positions, a small table that every token reads.
    """
    packed = dict(state)
    for name, tensor in state.items():
        if tensor.ndim == 2 and name != "positions.weight":
            blocks = tensor.unflatten(1, (-1, _BLOCK))  # (rows, blocks, 64)
            peaks = blocks.abs().amax(-1).half()
            steps = (blocks / peaks.float().clamp_min(1e-30)[..., None] * 127).round()
            packed[name], packed[name + _PEAK] = steps.clamp(-127, 127).flatten(1).to(torch.int8), peaks
    return packed


def unpack(packed: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state dict of what `pack` made, as float32 tensors, which it works on in place."""
    state = {name: tensor for name, tensor in packed.items() if not name.endswith(_PEAK)}
    for name in packed.keys() - state.keys():
        matrix, peaks = state.get(name.removesuffix(_PEAK)), packed[name]
        if matrix is None or matrix.shape != (len(peaks), peaks.shape[1] * _BLOCK):
            raise ValueError(f"{name!r} does not go with a matrix")
        matrix.unflatten(1, (-1, _BLOCK)).mul_(peaks[..., None] / 127)
    return state
