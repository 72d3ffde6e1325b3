"""Presets: every number of a run. A preset is a short list of differences from the defaults."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Literal

from core.backbones import Pooling
from core.backbones.emoji_tower import TinyCLIPConfig
from core.config import added
from core.data import DatasetConfig
from core.data.emoji.dataset import EmojiConfig
from core.data.meta_vqa import MetaVQAConfig
from core.data.simulated import SimulatedConfig
from core.networks.adapter import AdapterConfig
from core.networks.hvae import HVAEConfig
from core.networks.hyperclip import HyperCLIPConfig
from core.networks.hyperldm import HyperLDMConfig
from core.networks.hypernet import FilmConfig, HyperNetConfig


@dataclass(frozen=True)
class MultitaskConfig:
    """Algorithms 2, 5 and 6: no inner loop."""

    steps: int = 1500
    lr: float = 1e-3
    tasks: int = 32  # a meta-batch (Table 3)
    examples: int = 64  # of each task, drawn afresh every step
    clip: float = 10.0
    weight_decay: float = 0.0


@dataclass(frozen=True)
class MamlConfig:
    """Algorithms 3, 4 and 7. Inner steps are uniform in 0..max_inner_steps for every task (Table 3)."""

    steps: int = 600
    lr: float = 1e-3
    inner_lr: float = 0.1
    max_inner_steps: int = 10
    first_order: bool = False
    tasks: int = 32
    examples: int = 96
    support_fraction: float = 2 / 3
    clip: float = 10.0
    # The same descent in fewer coordinates but for rounding (core/adaptation/subspace.py), for rows that adapt weights.
    subspace: bool = added(False, was=False)


@dataclass(frozen=True)
class AdaptationConfig:
    """Fine-tuned weights that the generative models learn from (Algorithm 8): `draws` random supports a task."""

    draws: int = 8
    steps: int = 50
    lr: float = 0.1
    support_fraction: float = 0.8
    tasks: int = 64  # adapted at once
    subspace: bool = added(False, was=False)  # see `MamlConfig`


@dataclass(frozen=True)
class HVAETraining:
    steps: int = 1500
    lr: float = 3e-3
    batch: int = 64
    clip: float = 1000.0  # of encoder and decoder apart (Appendix A.7)
    examples: int = 32  # of each task, for the behaviour term


@dataclass(frozen=True)
class HyperCLIPTraining:
    steps: int = 1500
    lr: float = 3e-4
    batch: int = 64
    weight_decay: float = 0.01


@dataclass(frozen=True)
class DiffusionTraining:
    """Appendix A.7.3."""

    steps: int = 8000
    lr: float = 1e-3
    batch: int = 256
    drop_condition: float = 0.2
    ema: float = 0.999
    weight_decay: float = 0.01
    # Beyond the paper: the task's own loss of the adapter that the predicted z_0 decodes to, which tells the denoiser
    # which errors in a latent matter. 0 leaves it out.
    behaviour_weight: float = 0.0
    behaviour_tasks: int = 64  # of the batch
    behaviour_examples: int = 32  # of each task
    # Beyond the paper: tasks without a descriptor get one inferred from their data (core/adaptation/descriptors.py).
    infer_descriptors: bool = False
    # How many times as often a task with a descriptor of its own is drawn as one without.
    described_weight: float = added(1.0, was=1.0)

    def __post_init__(self) -> None:
        if not 0 < self.described_weight < math.inf:
            raise ValueError(f"described_weight={self.described_weight}; must be above 0 and finite")


@dataclass(frozen=True)
class GuidanceConfig:
    """HyperCLIP guidance (Appendix A.7.2)."""

    steps: int = 10
    lr: float = 0.1
    lam: float = 0.01
    optimizer: Literal["adam", "sgd"] = "adam"  # the authors' code's; the paper's text says gradient descent


@dataclass(frozen=True)
class SamplingConfig:
    """HyperLDM at evaluation. gamma is chosen among `gammas`, the number of averaged samples among `samples`."""

    sampler: str = "ddim"
    steps: int = 50
    samples: tuple[int, ...] = (1, 8)
    gammas: tuple[float, ...] = (0.0, 0.5, 1.0, 1.25, 1.5, 2.0, 3.0)


@dataclass(frozen=True)
class Preset:
    """Everything a run depends on besides the seed."""

    name: str
    backbone: str  # what core.backbones.load_backbone takes
    adapter: AdapterConfig
    dataset: DatasetConfig = field(default_factory=EmojiConfig)
    tiny_clip: TinyCLIPConfig | None = None  # the backbone is trained by this run's first stage, if any
    question_pooling: Pooling = "eos"  # what e is, for every row that reads a question (the paper: "eos")
    descriptors: float = 1.0  # share of training tasks whose question is known (50% Q., 100% Q.)
    hnet: HyperNetConfig = HyperNetConfig(input_dim=64, learn_z0=True)
    cond_hnet: dict[str, HyperNetConfig] = field(default_factory=dict)  # by row: cond_multitask, cond_hnet_maml
    film: FilmConfig = FilmConfig(input_dim=256)
    hvae: HVAEConfig = HVAEConfig(hidden=(256,))
    hyperclip: dict[str, HyperCLIPConfig] = field(default_factory=dict)  # by generator
    hyperldm: HyperLDMConfig = HyperLDMConfig(cond_dim=256, hidden=(512, 512, 512))
    multitask: dict[str, MultitaskConfig] = field(default_factory=dict)  # by row
    maml: dict[str, MamlConfig] = field(default_factory=dict)  # by row
    adaptations: dict[str, AdaptationConfig] = field(default_factory=dict)  # by generator: hvae, hnet
    hvae_training: HVAETraining = HVAETraining()
    hyperclip_training: dict[str, HyperCLIPTraining] = field(default_factory=dict)  # by generator
    diffusion: DiffusionTraining = DiffusionTraining()
    guidance: dict[str, GuidanceConfig] = field(default_factory=dict)  # by generator
    sampling: SamplingConfig = SamplingConfig()
    few_shot_steps: int = 50
    few_shot_lrs: tuple[float, ...] = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0)


_EMOJI = Preset(
    name="emoji",
    backbone="local-dir:weights/emoji/backbone",
    tiny_clip=TinyCLIPConfig(),
    question_pooling="mean",  # the end token tells the family of 32% of validation questions, the mean of 51%
    adapter=AdapterConfig(dim=256, hidden=32),  # P = 16,672: every checkpoint stays under 10 MiB
    multitask={
        "uncond_multitask": MultitaskConfig(steps=1500, lr=1e-2),
        "cond_multitask": MultitaskConfig(steps=8000, lr=3e-4),  # about as long as HVAE and HyperLDM together
        "cond_multitask_film": MultitaskConfig(steps=10000, lr=3e-3),
    },
    cond_hnet={
        "cond_multitask": HyperNetConfig(input_dim=256, whitening=1e-4, cond_noise=1.0),
        "cond_hnet_maml": HyperNetConfig(input_dim=256, whitening=1e-3, cond_noise=1.0),
    },
    film=FilmConfig(input_dim=256, whitening=1e-4, cond_noise=0.5),
    maml={
        "mnet_maml": MamlConfig(inner_lr=1.0, lr=2e-2, subspace=True),
        "mnet_fomaml": MamlConfig(inner_lr=1.0, lr=2e-2, first_order=True, subspace=True),
        "hnet_maml": MamlConfig(inner_lr=1.0, steps=750),
        "cond_hnet_maml": MamlConfig(inner_lr=1.0, steps=1600),
    },
    hvae=HVAEConfig(
        hidden=(256,), reconstruction="mean", reconstruction_weight=3e-5, kl_weight=5e-3, behaviour_weight=1.0
    ),
    # 50 steps at rate 1 leave "Where is ...?" unlearned, by held-out images of training tasks: from 26% to 32% right,
    # these to 51% (train/README.md). Other questions gain nothing.
    adaptations={
        "hvae": AdaptationConfig(steps=200, lr=4.0, subspace=True),
        "hnet": AdaptationConfig(lr=1.0, draws=4),
    },
    hvae_training=HVAETraining(steps=3000),
    hyperclip={
        "hvae": HyperCLIPConfig(whitening=1e-4, cond_noise=1.0, decoded=True, decoded_share=0.5, components=64),
        "hnet": HyperCLIPConfig(whitening=1e-3, cond_noise=1.0, decoded=True, components=64),
    },
    hyperclip_training={"hvae": HyperCLIPTraining(), "hnet": HyperCLIPTraining()},
    hyperldm=HyperLDMConfig(cond_dim=256, hidden=(512, 512, 512), prediction="v", whitening=1e-4, cond_noise=1.5),
    diffusion=DiffusionTraining(steps=1000, infer_descriptors=True, described_weight=2.0),
    guidance={"hvae": GuidanceConfig(), "hnet": GuidanceConfig()},
    sampling=SamplingConfig(steps=10, samples=(1, 32)),  # 50 steps do no better on validation tasks, nor do 8 samples
)


def _epochs(epochs: int, batch: int) -> int:
    """Steps of as many passes over the 870 training tasks of Meta-VQA: the paper counts epochs (Appendix A.7.1), and
    what it trained on included the 87 tasks that serve for validation here."""
    return round(epochs * 870 / batch)


_METAVQA = Preset(
    name="metavqa",
    backbone="ViT-L-14-336-quickgelu/openai",
    dataset=MetaVQAConfig(),
    adapter=AdapterConfig(),  # P = 394,240
    cond_hnet={row: HyperNetConfig(input_dim=768) for row in ("cond_multitask", "cond_hnet_maml")},
    film=FilmConfig(input_dim=768),
    # Table 3. A task shows all its examples, up to 256: 94% of tasks have fewer, the largest has 1,776.
    multitask={
        "uncond_multitask": MultitaskConfig(steps=_epochs(300, 32), lr=1e-4, examples=256),
        "cond_multitask": MultitaskConfig(steps=_epochs(60, 32), lr=1e-4, examples=256),
        "cond_multitask_film": MultitaskConfig(steps=_epochs(300, 32), lr=1e-4, examples=256),
    },
    maml={
        "mnet_maml": MamlConfig(steps=_epochs(500, 32), lr=3e-5, inner_lr=0.01, examples=256, subspace=True),
        "mnet_fomaml": MamlConfig(
            steps=_epochs(500, 32), lr=3e-5, inner_lr=0.01, examples=256, first_order=True, subspace=True
        ),
        "hnet_maml": MamlConfig(steps=_epochs(100, 32), lr=3e-5, inner_lr=0.1, examples=256),
        "cond_hnet_maml": MamlConfig(steps=_epochs(200, 32), lr=1e-5, inner_lr=0.1, examples=256),
    },
    # Appendix A.7.1
    adaptations={"hvae": AdaptationConfig(lr=0.01, subspace=True), "hnet": AdaptationConfig(lr=0.1)},
    hvae=HVAEConfig(),
    hvae_training=HVAETraining(steps=_epochs(2000, 32), lr=1e-4, batch=32),
    # Appendix A.7.2
    hyperclip={"hvae": HyperCLIPConfig(), "hnet": HyperCLIPConfig()},
    hyperclip_training={g: HyperCLIPTraining(steps=_epochs(600, 64), weight_decay=0.0) for g in ("hvae", "hnet")},
    guidance={"hvae": GuidanceConfig(), "hnet": GuidanceConfig()},
    # Appendix A.7.3, whose "128 epochs" must mean the batch
    hyperldm=HyperLDMConfig(),
    diffusion=DiffusionTraining(steps=_epochs(1000, 128), lr=2.5e-4, batch=128, weight_decay=0.0),
    sampling=SamplingConfig(sampler="ddpm", steps=350, samples=(1,)),
    few_shot_lrs=(0.01, 0.03, 0.1, 0.3, 1.0),
)

_PRESETS: dict[str, Preset] = {
    "emoji": _EMOJI,
    # the paper: hours on one GPU; a denoiser for CPUs: --set hyperldm.hidden=[1024,1024,1024]
    "metavqa": _METAVQA,
    # its sizes and schedules on simulated features, for timing and memory; the dataset is its own backbone
    "metavqa_sim": replace(_METAVQA, name="metavqa_sim", backbone="simulated", dataset=SimulatedConfig()),
    # every stage of `emoji` in about a minute; the numbers it reaches mean nothing
    "tiny": replace(
        _EMOJI,
        name="tiny",
        tiny_clip=None,
        dataset=EmojiConfig(train_tasks=72, val_tasks=12, test_known_tasks=16, test_new_tasks=8),
        adapter=AdapterConfig(dim=256, hidden=4),
        hvae=HVAEConfig(hidden=(32,), latent=8, behaviour_weight=1.0),
        hyperldm=HyperLDMConfig(cond_dim=256, hidden=(64, 64), latent=8, prediction="v"),
        multitask={row: replace(c, steps=10, tasks=8, examples=24) for row, c in _EMOJI.multitask.items()},
        maml={row: replace(c, steps=4, tasks=8, examples=24) for row, c in _EMOJI.maml.items()},
        adaptations={g: replace(c, draws=2, steps=5) for g, c in _EMOJI.adaptations.items()},
        hvae_training=HVAETraining(steps=20),
        hyperclip_training={g: HyperCLIPTraining(steps=20) for g in _EMOJI.hyperclip_training},
        diffusion=replace(_EMOJI.diffusion, steps=30, batch=32, behaviour_tasks=8),
        sampling=SamplingConfig(steps=5, samples=(1, 2), gammas=(0.0, 1.0, 1.5)),
        few_shot_lrs=(0.25, 1.0, 4.0),
    ),
}


def get_preset(name: str) -> Preset:
    """The preset called `name`; a ValueError lists the known ones."""
    if name not in _PRESETS:
        raise ValueError(f"preset {name!r}; allowed: {', '.join(_PRESETS)}")
    return _PRESETS[name]


def shortened(preset: Preset, share: float) -> Preset:
    """The preset with that share of every stage's training steps, at least one; what it reaches means nothing."""
    if not 0.0 < share <= 1.0:
        raise ValueError(f"share {share} of the steps; allowed: more than 0, up to 1")
    cut = lambda config: replace(config, steps=max(1, round(share * config.steps)))
    return replace(
        preset,
        multitask={row: cut(config) for row, config in preset.multitask.items()},
        maml={row: cut(config) for row, config in preset.maml.items()},
        hvae_training=cut(preset.hvae_training),
        hyperclip_training={g: cut(config) for g, config in preset.hyperclip_training.items()},
        diffusion=cut(preset.diffusion),
    )


PRESET_NAMES = tuple(_PRESETS)
