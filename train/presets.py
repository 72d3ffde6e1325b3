"""Presets: all training numbers. A preset is a short list of differences from the defaults of its settings."""

from __future__ import annotations

from dataclasses import replace

from core.data.emoji.dataset import EmojiConfig
from core.data.meta_vqa import MetaVQAConfig
from core.data.simulated import SimulatedConfig
from core.networks.adapter import AdapterConfig
from core.networks.base import default_configs
from core.networks.film import FilmConfig
from core.networks.hvae import HVAEConfig
from core.networks.hyperclip import HyperCLIPConfig
from core.networks.hyperldm import HyperLDMConfig
from core.networks.hypernet import CondBottleneckConfig, CondHyperNetConfig
from core.networks.lowrank import LowRankConfig
from core.networks.trunk import TrunkConfig
from train.encoders.config import PhotoTowerTraining
from train.pipeline.settings import (
    AdaptationConfig,
    DiffusionTraining,
    GuidanceConfig,
    HVAETraining,
    HyperCLIPTraining,
    KernelRidgeSearch,
    MamlConfig,
    MultitaskConfig,
    Preset,
    RegressionTraining,
    SamplingConfig,
)
from train.pipeline.tiny_clip.config import TinyCLIPConfig

# How questions are read, the same for all rows. A direction of e counts in full from a tenth of the largest variance
# up, whatever the number of questions (train/README.md).
_ASKED = {"whitening": 0.1, "cond_noise": 1.0}
_ASKED_FINER = _ASKED | {"whitening": 1e-2}  # what `tune.py` chose for these rows
# What every row that reads questions makes of training tasks whose question is not known (--descriptors).
_INFERRED = {"infer_descriptors": True, "described_weight": 2.0}

_EMOJI = Preset(
    name="emoji",
    backbone="local-dir:weights/emoji/backbone",
    tiny_clip=TinyCLIPConfig(),
    question_pooling="mean",  # where the tower embeds questions: the end token tells the family of 32%, the mean of 51%
    # P = 16,672 at D = 256: every checkpoint stays under 10 MiB
    networks=default_configs() | {"clip_adapter": AdapterConfig(hidden=32), "lowrank": LowRankConfig(rank=32)},
    multitask={
        "uncond_multitask": MultitaskConfig(steps=1500, lr=1e-2),
        # about as long as HVAE and HyperLDM together
        "cond_multitask": MultitaskConfig(steps=8000, lr=3e-4, **_INFERRED),
        "cond_multitask_film": MultitaskConfig(steps=10000, lr=3e-3, **_INFERRED),
        "cond_bottleneck": MultitaskConfig(steps=2500, lr=3e-4, weight_decay=0.01, ema=0.99, **_INFERRED),
    },
    cond_bottleneck=CondBottleneckConfig(**_ASKED),
    cond_hnet={
        "cond_multitask": CondHyperNetConfig(**_ASKED_FINER),
        "cond_hnet_maml": CondHyperNetConfig(**_ASKED),
    },
    film=FilmConfig(**_ASKED),
    maml={
        "mnet_maml": MamlConfig(inner_lr=1.0, lr=2e-2),
        "mnet_fomaml": MamlConfig(inner_lr=1.0, lr=2e-2, first_order=True),
        "hnet_maml": MamlConfig(inner_lr=1.0, steps=750),
        "cond_hnet_maml": MamlConfig(inner_lr=1.0, steps=1600, **_INFERRED),
    },
    hvae=HVAEConfig(
        hidden=(256,), reconstruction="mean", reconstruction_weight=3e-5, kl_weight=5e-3, behaviour_weight=1.0
    ),
    # 50 steps at rate 1 leave "Where is ...?" unlearned, by held-out images of training tasks: from 26% to 32% right,
    # these to 51% (train/README.md). Other questions gain nothing.
    adaptations={
        "hvae": AdaptationConfig(steps=200, lr=4.0),
        "hnet": AdaptationConfig(lr=1.0, draws=4),
    },
    hvae_training=HVAETraining(steps=3000),
    hyperclip={
        "hvae": HyperCLIPConfig(**_ASKED_FINER, decoded=True, decoded_share=0.5, components=64),
        "hnet": HyperCLIPConfig(**_ASKED_FINER, decoded=True, components=64),
    },
    hyperclip_training={name: HyperCLIPTraining(infer_descriptors=True) for name in ("hvae", "hnet")},
    hyperldm=HyperLDMConfig(hidden=(512, 512, 512), prediction="v", **_ASKED),
    diffusion=DiffusionTraining(steps=1000, **_INFERRED),
    latent_regression=TrunkConfig(hidden=(512, 512, 512), **_ASKED),
    regression=RegressionTraining(lr=3e-4, ema=0.999, **_INFERRED),
    kernel_ridge=KernelRidgeSearch(whitening=0.1, infer_descriptors=True),
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
    # the base network at its defaults: P = 394,240 at D = 768
    cond_hnet={row: CondHyperNetConfig() for row in ("cond_multitask", "cond_hnet_maml")},
    film=FilmConfig(),
    # Table 3. A task shows all its examples, up to 256: 94% of tasks have fewer, the largest has 1,776.
    multitask={
        "uncond_multitask": MultitaskConfig(steps=_epochs(300, 32), lr=1e-4, examples=256),
        "cond_multitask": MultitaskConfig(steps=_epochs(60, 32), lr=1e-4, examples=256),
        "cond_multitask_film": MultitaskConfig(steps=_epochs(300, 32), lr=1e-4, examples=256),
        "cond_bottleneck": MultitaskConfig(steps=_epochs(60, 32), lr=1e-4, examples=256),  # no row of the paper's
    },
    maml={
        "mnet_maml": MamlConfig(steps=_epochs(500, 32), lr=3e-5, inner_lr=0.01, examples=256),
        "mnet_fomaml": MamlConfig(steps=_epochs(500, 32), lr=3e-5, inner_lr=0.01, examples=256, first_order=True),
        "hnet_maml": MamlConfig(steps=_epochs(100, 32), lr=3e-5, inner_lr=0.1, examples=256),
        "cond_hnet_maml": MamlConfig(steps=_epochs(200, 32), lr=1e-5, inner_lr=0.1, examples=256),
    },
    # Appendix A.7.1
    adaptations={"hvae": AdaptationConfig(lr=0.01), "hnet": AdaptationConfig(lr=0.1)},
    hvae=HVAEConfig(),
    hvae_training=HVAETraining(steps=_epochs(2000, 32), lr=1e-4, batch=32),
    # Appendix A.7.2
    hyperclip={"hvae": HyperCLIPConfig(), "hnet": HyperCLIPConfig()},
    hyperclip_training={g: HyperCLIPTraining(steps=_epochs(600, 64), weight_decay=0.0) for g in ("hvae", "hnet")},
    guidance={"hvae": GuidanceConfig(), "hnet": GuidanceConfig()},
    # Appendix A.7.3, whose "128 epochs" must mean the batch
    hyperldm=HyperLDMConfig(),
    diffusion=DiffusionTraining(steps=_epochs(1000, 128), lr=2.5e-4, batch=128, weight_decay=0.0),
    latent_regression=TrunkConfig(),
    regression=RegressionTraining(steps=_epochs(1000, 128), lr=2.5e-4, batch=128, weight_decay=0.0, ema=0.999),
    sampling=SamplingConfig(sampler="ddpm", steps=350, samples=(1,), gradient_scales=(0.1, 1.0)),
    few_shot_lrs=(0.01, 0.03, 0.1, 0.3, 1.0),
)

# Few photographs with Meta-VQA's questions: 3,359 pairs of 665 questions. Settings were chosen by five folds of the
# training questions (train/README.md). Losses are computed at about the scale at which the tower's probabilities are
# right.
_PHOTOS = replace(
    _EMOJI,
    name="photos",
    backbone="local-dir:weights/photos/backbone",
    tiny_clip=None,
    photo_tower=PhotoTowerTraining(),
    dataset=MetaVQAConfig(directory="weights/photos/data", val_tasks=74),
    pooled=True,
    logit_scale=7.0,
    # P = 12,688 at D = 384
    networks=default_configs() | {"clip_adapter": AdapterConfig(hidden=16), "lowrank": LowRankConfig(rank=16)},
    multitask={
        "uncond_multitask": MultitaskConfig(steps=200, lr=1e-3, examples=8),
        "cond_multitask": MultitaskConfig(steps=800, lr=1e-3, examples=8, weight_decay=3.0, **_INFERRED),
        "cond_multitask_film": MultitaskConfig(steps=800, lr=1e-3, examples=8, weight_decay=3.0, **_INFERRED),
        "cond_bottleneck": MultitaskConfig(steps=800, lr=1e-3, examples=8, weight_decay=3.0, ema=0.99, **_INFERRED),
    },
    cond_hnet={
        "cond_multitask": CondHyperNetConfig(hidden=64, **_ASKED),
        "cond_hnet_maml": CondHyperNetConfig(hidden=64, **_ASKED),
    },
    maml={
        "mnet_maml": MamlConfig(inner_lr=2.0, steps=150, examples=32),
        "mnet_fomaml": MamlConfig(inner_lr=2.0, steps=150, examples=32, first_order=True),
        "hnet_maml": MamlConfig(inner_lr=2.0, steps=150, examples=32),
        "cond_hnet_maml": MamlConfig(inner_lr=2.0, steps=400, examples=32, **_INFERRED),
    },
    # more than a few small steps on a handful of pairs make held-out ones worse
    adaptations={
        "hvae": AdaptationConfig(steps=10, lr=1.0, draws=8),
        "hnet": AdaptationConfig(steps=10, lr=1.0, draws=4),
    },
    hvae_training=HVAETraining(steps=600, batch=32),
    # what `tune.py` chose on drawn scenes is not chosen here
    hyperclip={name: replace(config, **_ASKED) for name, config in _EMOJI.hyperclip.items()},
    diffusion=DiffusionTraining(steps=1000, **_INFERRED),
    regression=replace(_EMOJI.regression, lr=1e-3),
    few_shot_steps=10,
    few_shot_lrs=(0.25, 0.5, 1.0, 2.0, 4.0, 8.0),
)

_PRESETS: dict[str, Preset] = {
    "emoji": _EMOJI,
    "photos": _PHOTOS,
    # the paper: hours on one GPU; a denoiser for CPUs: --set hyperldm.hidden=[1024,1024,1024]
    "metavqa": _METAVQA,
    # its sizes and schedules on simulated features, for timing and memory; the dataset is its own backbone
    "metavqa_sim": replace(
        _METAVQA,
        name="metavqa_sim",
        backbone="simulated",
        dataset=SimulatedConfig(),
        question_encoder="clip",
        other_words=0.0,
    ),
    # every stage of `emoji` in about a minute; the numbers it reaches mean nothing
    "tiny": replace(
        _EMOJI,
        name="tiny",
        tiny_clip=None,
        dataset=EmojiConfig(train_tasks=72, val_tasks=12, test_known_tasks=16, test_new_tasks=8),
        networks=default_configs() | {"clip_adapter": AdapterConfig(hidden=4), "lowrank": LowRankConfig(rank=4)},
        hvae=HVAEConfig(hidden=(32,), latent=8, behaviour_weight=1.0),
        hyperldm=HyperLDMConfig(hidden=(64, 64), prediction="v"),
        latent_regression=TrunkConfig(hidden=(64, 64)),
        cond_bottleneck=CondBottleneckConfig(latent=8, encoder=(32,), hidden=32),
        multitask={row: replace(c, steps=10, tasks=8, examples=24) for row, c in _EMOJI.multitask.items()},
        maml={row: replace(c, steps=4, tasks=8, examples=24) for row, c in _EMOJI.maml.items()},
        adaptations={g: replace(c, draws=2, steps=5) for g, c in _EMOJI.adaptations.items()},
        hvae_training=HVAETraining(steps=20),
        hyperclip=_PHOTOS.hyperclip,  # as all rows began: 72 questions chose nothing
        hyperclip_training={g: HyperCLIPTraining(steps=20) for g in _EMOJI.hyperclip_training},
        diffusion=replace(_EMOJI.diffusion, steps=30, batch=32, behaviour_tasks=8),
        regression=replace(_EMOJI.regression, steps=20, batch=32),
        kernel_ridge=replace(_EMOJI.kernel_ridge, widths=(0.7, 1.5), ridges=(0.1, 1.0)),
        sampling=SamplingConfig(steps=5, samples=(1, 2), gammas=(0.0, 1.0, 1.5), gradient_scales=(0.1, 1.0)),
        few_shot_steps=25,
        few_shot_lrs=(0.25, 1.0, 4.0),
    ),
}


# What takes preset `emoji` back to the paper's way, for `--set`, as far as settings go: how questions are embedded and
# read, what the HVAE learns and from which weights, what HyperLDM predicts, and how it is sampled. Not its sizes of
# networks and numbers of epochs, which are a GPU's, nor how the base network starts (train/README.md).
PAPERS_HVAE = (
    "hvae.behaviour_weight=0",
    "hvae.reconstruction=authors",
    "hvae.reconstruction_weight=1",
    "hvae.kl_weight=1",
)
PAPERS_DESCRIPTORS = ("diffusion.infer_descriptors=false", "diffusion.described_weight=1")
PAPERS_WAY = (
    *("question_encoder=clip", "question_pooling=eos", "other_words=0"),
    *("hyperldm.whitening=1000", "hyperldm.cond_noise=0", "hyperldm.prediction=eps"),
    *(*PAPERS_HVAE, "hvae.hidden=[512,256]", "hvae_training.standardise=false"),
    *("adaptations.hvae.steps=50", "adaptations.hvae.lr=1"),
    *(*PAPERS_DESCRIPTORS, "diffusion.ema=0", "diffusion.weight_decay=0"),
    *("sampling.sampler=ddpm", "sampling.steps=350", "sampling.samples=[1]", "sampling.quick=[]"),
)


def get_preset(name: str) -> Preset:
    """The preset called `name`; a ValueError lists the known ones."""
    if name not in _PRESETS:
        raise ValueError(f"preset {name!r}; allowed: {', '.join(_PRESETS)}")
    return _PRESETS[name]


def shortened(preset: Preset, share: float) -> Preset:
    """The preset with that share of the training steps of every row, at least one; what it reaches means nothing. The
    backbone and the adaptations that generators learn from are made as ever."""
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
        regression=cut(preset.regression),
    )


PRESET_NAMES = tuple(_PRESETS)
