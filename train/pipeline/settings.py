"""Everything that a run depends on besides its seed: the settings of every stage, gathered in a preset."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, is_dataclass, replace
from typing import Any, Literal

from core.backbones import Pooling
from core.backbones.questions import Kind, check_layers, question_dim
from core.bounds import check_bounds
from core.config import later
from core.data.base import DatasetConfig
from core.data.emoji.dataset import EmojiConfig
from core.diffusion.samplers import SAMPLERS
from core.methods import MAX_GAMMA, MAX_SAMPLES
from core.networks.base import BASE_NETWORKS, TRAINING_SCALE, BaseNetwork, default_configs
from core.networks.film import FilmConfig
from core.networks.hvae import HVAEConfig
from core.networks.hyperclip import HyperCLIPConfig
from core.networks.hyperldm import HyperLDMConfig
from core.networks.hypernet import CondBottleneckConfig, CondHyperNetConfig, HNetConfig
from core.networks.trunk import TrunkConfig
from train.encoders.config import PhotoTowerTraining

from .asked import digest
from .tiny_clip.config import TinyCLIPConfig


@dataclass(frozen=True)
class QuestionTraining:
    """What any row that reads questions may have, so that no row is compared with one that has more; off by default."""

    infer_descriptors: bool = later(False)  # for tasks without one, from their data (core/adaptation/descriptors.py)


@dataclass(frozen=True)
class RowTraining(QuestionTraining):
    """What any row may have that steps train on tasks drawn with replacement; off by default."""

    ema: float = later(0.0)  # decay of the moving average of weights that is shipped; 0 ships the last ones
    # How many times as often a task with a descriptor of its own is drawn as one whose descriptor is inferred.
    described_weight: float = later(1.0)

    def __post_init__(self) -> None:
        if not 0 < self.described_weight < math.inf:
            raise ValueError(f"described_weight={self.described_weight}; must be above 0 and finite")
        if not 0 <= self.ema < 1:
            raise ValueError(f"ema={self.ema}; must be from 0 to below 1")


@dataclass(frozen=True)
class MultitaskConfig(RowTraining):
    """Algorithms 2, 5 and 6: no inner loop."""

    steps: int = 1500
    lr: float = 1e-3
    tasks: int = 32  # a meta-batch (Table 3)
    examples: int = 64  # of each task, drawn afresh every step
    clip: float = 10.0
    weight_decay: float = 0.0


@dataclass(frozen=True)
class MamlConfig(RowTraining):
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
    weight_decay: float = later(0.0)


@dataclass(frozen=True)
class AdaptationConfig:
    """Fine-tuned weights that the generative models learn from (Algorithm 8): `draws` random supports a task."""

    draws: int = 8
    steps: int = 50
    lr: float = 0.1
    support_fraction: float = 0.8
    tasks: int = 64  # adapted at once


@dataclass(frozen=True)
class HVAETraining:
    steps: int = 1500
    lr: float = 3e-3
    batch: int = 64
    clip: float = 1000.0  # of encoder and decoder apart (Appendix A.7)
    examples: int = 32  # of each task, for the behaviour term
    standardise: bool = later(True)  # weights, by coordinate; the paper's are raw


@dataclass(frozen=True)
class HyperCLIPTraining(QuestionTraining):
    steps: int = 1500
    lr: float = 3e-4
    batch: int = 64
    weight_decay: float = 0.01
    ema: float = later(0.0)


@dataclass(frozen=True)
class DiffusionTraining(RowTraining):
    """Appendix A.7.3; beyond the paper, what tasks without a descriptor teach."""

    steps: int = 8000
    lr: float = 1e-3
    batch: int = 256
    drop_condition: float = 0.2
    weight_decay: float = 0.01
    ema: float = 0.999
    infer_descriptors: bool = False
    described_weight: float = 1.0
    # Beyond the paper: the task's own loss of the adapter that the predicted z_0 decodes to, which tells the denoiser
    # which errors in a latent matter. 0 leaves it out.
    behaviour_weight: float = 0.0
    behaviour_tasks: int = 64  # of the batch
    behaviour_examples: int = 32  # of each task


@dataclass(frozen=True)
class RegressionTraining(RowTraining):
    """The regression from questions to latents."""

    steps: int = 1000
    lr: float = 1e-3
    batch: int = 256
    weight_decay: float = 0.01


@dataclass(frozen=True)
class KernelRidgeSearch(QuestionTraining):
    """Kernel ridge regression: what validation tasks choose from."""

    widths: tuple[float, ...] = (0.7, 1.0, 1.5, 2.0, 3.0)
    ridges: tuple[float, ...] = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 1e-1)
    whitening: float = 1e-3


@dataclass(frozen=True)
class GuidanceConfig:
    """HyperCLIP guidance (Appendix A.7.2)."""

    steps: int = 10
    lr: float = 0.1
    lam: float = 0.01
    optimizer: Literal["adam", "sgd"] = "adam"  # the authors' code's; the paper's text says gradient descent


@dataclass(frozen=True)
class SamplingConfig:
    """HyperLDM at evaluation. gamma is chosen among `gammas`, the number of averaged samples among `samples`; then
    whatever of `quick` loses nothing that validation tasks can tell takes the place of `steps` and samples."""

    sampler: str = "ddim"
    steps: int = 50
    samples: tuple[int, ...] = (1, 8)
    gammas: tuple[float, ...] = (0.0, 0.5, 1.0, 1.25, 1.5, 2.0, 3.0)
    # (steps, samples). One step gives nearly the mean of all latents, which is what averaged samples are after. Four
    # samples take a question hardly longer than one, and hang less on the draw.
    quick: tuple[tuple[int, int], ...] = ((1, 4), (2, 8), (4, 8))
    gradient_scales: tuple[float, ...] = later((0.03, 0.1, 0.3, 1.0))  # of HyperCLIP's guidance of samples (Eq. 11)

    def __post_init__(self) -> None:  # before hours of training, not after them
        if self.sampler not in SAMPLERS:
            raise ValueError(f"sampler {self.sampler!r}; allowed: {', '.join(SAMPLERS)}")
        if self.steps < 1:
            raise ValueError(f"sampling.steps {self.steps}; allowed: 1 or more")
        if not self.samples or not all(1 <= count <= MAX_SAMPLES for count in self.samples):
            raise ValueError(f"sampling.samples {self.samples}; allowed: one or more numbers from 1 to {MAX_SAMPLES}")
        if not all(steps >= 1 and 1 <= samples <= MAX_SAMPLES for steps, samples in self.quick):
            raise ValueError(f"sampling.quick {self.quick}; allowed: 1 or more steps, 1 to {MAX_SAMPLES} samples")
        if not self.gammas or not all(0 <= gamma <= MAX_GAMMA for gamma in self.gammas):
            raise ValueError(f"sampling.gammas {self.gammas}; allowed: one or more numbers from 0 to {MAX_GAMMA:g}")


@dataclass(frozen=True)
class Preset:
    """Everything a run depends on besides the seed."""

    name: str
    backbone: str  # what core.backbones.load_backbone takes
    dataset: DatasetConfig = field(default_factory=EmojiConfig)
    network: str = "clip_adapter"  # the base network that weights are generated for
    networks: dict[str, Any] = field(default_factory=default_configs)  # settings of each base network
    logit_scale: float = TRAINING_SCALE  # on cosines, in every loss
    tiny_clip: TinyCLIPConfig | None = None  # the backbone is trained by this run's first stage, if any
    photo_tower: PhotoTowerTraining | None = None  # likewise, where the backbone is a directory
    # What e is, for every row that reads a question: of "sentence", these layers; of "clip", which is the paper's way,
    # the end token or the mean. Beyond the paper also what the candidate answers are.
    question_encoder: Kind = "sentence"
    question_layers: tuple[int, ...] = (2, 6)
    question_pooling: Pooling = "eos"
    question_answers: bool = later(False)
    # Beyond the paper: how often training puts a question in other words (train/phrasings.toml), for every row alike.
    other_words: float = 0.75
    descriptors: float = 1.0  # share of training tasks whose question is known (50% Q., 100% Q.)
    hnet: HNetConfig = HNetConfig()
    cond_hnet: dict[str, CondHyperNetConfig] = field(default_factory=dict)  # by row: cond_multitask, cond_hnet_maml
    film: FilmConfig = FilmConfig()
    hvae: HVAEConfig = HVAEConfig(hidden=(256,))
    generators: dict[str, Any] = field(default_factory=dict)  # settings of other weight generators, by name
    hyperclip: dict[str, HyperCLIPConfig] = field(default_factory=dict)  # by generator
    hyperldm: HyperLDMConfig = HyperLDMConfig(hidden=(512, 512, 512))
    latent_regression: TrunkConfig = TrunkConfig(hidden=(512, 512, 512))
    cond_bottleneck: CondBottleneckConfig = CondBottleneckConfig()
    multitask: dict[str, MultitaskConfig] = field(default_factory=dict)  # by row
    maml: dict[str, MamlConfig] = field(default_factory=dict)  # by row
    adaptations: dict[str, AdaptationConfig] = field(default_factory=dict)  # by generator: hvae, hnet
    hvae_training: HVAETraining = HVAETraining()
    hyperclip_training: dict[str, HyperCLIPTraining] = field(default_factory=dict)  # by generator
    diffusion: DiffusionTraining = DiffusionTraining()
    regression: RegressionTraining = RegressionTraining()
    kernel_ridge: KernelRidgeSearch = KernelRidgeSearch()
    guidance: dict[str, GuidanceConfig] = field(default_factory=dict)  # by generator
    sampling: SamplingConfig = SamplingConfig()
    few_shot_steps: int = 50
    few_shot_lrs: tuple[float, ...] = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0)
    # Accuracy is pooled: each pair of picture and question counts the same, not each task. For tasks of few pairs.
    pooled: bool = False

    def __post_init__(self) -> None:
        check_bounds(self)
        check_layers(self.question_layers)
        if self.network not in BASE_NETWORKS:
            raise ValueError(f"network {self.network!r}; allowed: {', '.join(BASE_NETWORKS.names())}")
        if self.sampling.steps > self.hyperldm.num_timesteps:
            raise ValueError(
                f"sampling.steps {self.sampling.steps}; allowed: up to hyperldm.num_timesteps, "
                f"{self.hyperldm.num_timesteps}"
            )

    @property
    def own_backbone(self) -> TinyCLIPConfig | PhotoTowerTraining | None:
        """How a run trains its backbone; None where it takes one as it is."""
        return (self.tiny_clip or self.photo_tower) if self.backbone.startswith("local-dir:") else None

    @property
    def network_config(self) -> Any:
        """Settings of the base network."""
        return self.networks[self.network]

    @property
    def network_settings(self) -> tuple[Any, ...]:
        """What everything that makes weights depends on. Where accuracy is pooled, tasks are drawn by their pairs."""
        return self.network, self.network_config, self.logit_scale, *(("pooled",) if self.pooled else ())

    @property
    def questions(self) -> dict[str, Any]:
        """The spec of the question encoder (`core.backbones.questions`)."""
        clip = self.question_encoder == "clip"
        own = {"pooling": self.question_pooling} if clip else {"layers": list(self.question_layers)}
        return {"encoder": self.question_encoder, **own, **({"answers": True} if self.question_answers else {})}

    @property
    def question_settings(self) -> tuple[Any, ...]:
        """What everything that learns from questions depends on."""
        return self.descriptors, self.questions, *((self.other_words, digest()) if self.other_words else ())

    def question_dim(self, dim: int) -> int:
        """E, the size of e beside a backbone's embeddings of size `dim`."""
        return question_dim(self.questions, dim)

    def latent(self, generator: str) -> int:
        """Z of a weight generator."""
        return (self.generators.get(generator) or getattr(self, generator)).latent

    def base_network(self, dim: int) -> BaseNetwork:
        """The base network on a backbone's embeddings of size `dim`; everything else's size follows from it."""
        return BASE_NETWORKS[self.network](self.network_config, dim, self.logit_scale)


def smaller(preset: Preset, setting: str) -> str:
    """KEY=VALUE that makes a rate of a preset, named as `--set` names it, ten times as small."""
    value: Any = preset
    for name in setting.split("."):
        value = value[name] if isinstance(value, dict) else getattr(value, name)
    return f"{setting}={value / 10:g}"


def as_settings(spec: dict[str, Any]) -> dict[str, Any]:
    """The settings of a preset that give the spec of a question encoder, as a release keeps it."""
    values = {"question_encoder": spec["encoder"], "question_answers": spec.get("answers", False)}
    values |= {"question_layers": tuple(spec["layers"])} if "layers" in spec else {}
    return values | ({"question_pooling": spec["pooling"]} if "pooling" in spec else {})


def once(*settings: Any) -> tuple[Any, ...]:
    """Settings with one step, one draw and every task described: what the cost of a step depends on."""
    same = {"steps": 1, "draws": 1, "infer_descriptors": False, "described_weight": 1.0}
    one = lambda config: {name: value for name, value in same.items() if hasattr(config, name)}
    return tuple(replace(config, **one(config)) if is_dataclass(config) else config for config in settings)
