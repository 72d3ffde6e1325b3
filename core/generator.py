"""The facade: a question in, an adapter out. What the app, the command line (core/cli.py) and users call."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .backbones import Backbone, Pooling, load_backbone
from .classifier import Adapter, check_answers, check_images, open_image
from .config import from_dict
from .data.known_questions import KnownQuestion, KnownQuestions
from .diffusion.guidance import classifier_free
from .diffusion.samplers import SAMPLERS, shared_normal
from .networks.adapter import AdapterConfig
from .networks.hvae import HVAE
from .networks.hyperclip import guide_latent, infer_task
from .release.checkpoint import load_adapter, load_module
from .release.hub import HubError, pull
from .release.manifest import backbone_directory, read_config

__all__ = ["GENERATORS", "METHODS", "Adapter", "AdapterGenerator", "check_answers", "check_images", "open_image"]

GENERATORS = ("hvae", "hnet")
# how to get from a question to weights; only the first two search the latent space of a generator
METHODS = (
    "hyperldm",
    "hyperclip",
    "cond_multitask",
    "cond_multitask_film",
    "cond_hnet_maml",
    "uncond_multitask",
    "mnet_maml",
    "mnet_fomaml",
    "hnet_maml",
    "clip",
)
MAX_GAMMA, MAX_SAMPLES, MAX_SEED = 10.0, 64, 2**63 - 1


class AdapterGenerator:
    """Everything a release directory holds, loaded on first use.

    A release is `config.json` (adapter, choices made on validation tasks, known questions), `backbone/` and one
    safetensors file per model.
    """

    def __init__(self, directory: Path | str, config: dict[str, Any], device: torch.device | str = "cpu") -> None:
        self.directory, self.config, self.device = Path(directory), config, torch.device(device)
        self.adapter = from_dict(AdapterConfig, config["adapter"])
        self._modules: dict[str, torch.nn.Module] = {}

    @classmethod
    def from_pretrained(
        cls, path_or_hub_id: Path | str, *, revision: str | None = None, device: torch.device | str = "cpu"
    ) -> AdapterGenerator:
        """Load a release from a local directory, or from the Hub, where it is downloaded once and then cached.

        Args:
            path_or_hub_id: a directory, `user/repo` or `user/repo@revision`.
            revision: a branch, tag or commit on the Hub (default: main).

        Raises:
            ValueError: neither a directory nor a repository, a release that is not whole or of a newer format, or a
                `core.hub.HubError` that says what to do.
        """
        directory, name = Path(path_or_hub_id), None
        if not directory.is_dir():
            try:
                directory = pull(str(path_or_hub_id), revision)
            except ValueError as error:
                raise HubError(f"{str(path_or_hub_id)!r} is neither a directory nor to be had: {error}") from error
            name = f"Hub repository {str(path_or_hub_id)!r}" + (f" at {revision!r}" if revision else "")
        elif revision is not None:
            raise ValueError(f"revision {revision!r}: {directory} is a directory, only Hub repositories have revisions")
        return cls(directory, read_config(directory, name), device)

    @cached_property
    def backbone(self) -> Backbone:
        local = backbone_directory(self.directory, self.config)
        return load_backbone(self.config["backbone"] if local is None else f"local-dir:{local}", self.device)

    @cached_property
    def known_questions(self) -> list[dict[str, Any]]:
        """Training questions: dictionaries with question, answers, family."""
        return self.config.get("questions", [])

    @cached_property
    def _known_embeddings(self) -> Tensor:
        return self.embed_questions([known["question"] for known in self.known_questions])

    def embed_questions(self, questions: Sequence[str]) -> Tensor:
        """Task embeddings e (B, D), pooled as this release's models were trained."""
        return self.backbone.encode_questions(questions, self.pooling)

    @property
    def pooling(self) -> Pooling:
        """How questions become task embeddings, see `ClipBackbone.encode_questions`."""
        return self.config.get("question_pooling", "eos")

    def has(self, method: str, generator: str = "hvae") -> bool:
        """Whether this release holds what the method needs."""
        return method == "clip" or all(self._exists(name) for name in _files(method, generator))

    def _exists(self, name: str) -> bool:
        return any(self.directory.glob(f"{name}.safetensors")) or any(
            self.directory.glob(f"{name}-?????-of-?????.safetensors")
        )

    def module(self, name: str) -> torch.nn.Module:
        """A model of this release by file name, loaded once."""
        if name not in self._modules:
            self._modules[name] = load_module(self.directory / f"{name}.safetensors", self.device)
        return self._modules[name]

    def decoder(self, generator: str):
        """(T, Z) -> (T, P) of "hvae" or "hnet"."""
        module = self.module("hvae" if generator == "hvae" else "hnet_maml")
        return module.decode if isinstance(module, HVAE) else module

    @torch.no_grad()
    def weights(
        self,
        e: Tensor,
        method: str = "hyperldm",
        *,
        generator: str = "hvae",
        gamma: float | None = None,
        steps: int | None = None,
        samples: int | None = None,
        seed: int = 0,
        callback=None,
    ) -> Tensor | None:
        """Weights w (T, P) for question embeddings e (T, D); None for plain CLIP. The core of `generate`.

        `gamma`, `steps` and `samples` default to what validation tasks chose. Several samples of HyperLDM are averaged
        as latents, before the decoder: one adapter comes out, and the average is nearer to what a question says for
        sure than any single draw.
        """
        check_request(method, generator, gamma, steps, samples)
        if method == "clip":
            return None
        if method in ("uncond_multitask", "mnet_maml", "mnet_fomaml"):
            w, _, _ = load_adapter(self.directory / f"{method}.safetensors")
            return w.to(self.device).expand(len(e), -1)
        e = e.to(self.device)
        if method in ("cond_multitask", "cond_multitask_film", "cond_hnet_maml"):
            return self.module(method)(e)
        if method == "hnet_maml":
            return self.module(method)(self.module(method).z0.expand(len(e), -1))
        z = self.latents(
            e, method, generator=generator, gamma=gamma, steps=steps, samples=samples, seed=seed, callback=callback
        )
        return self.decoder(generator)(z)

    @torch.no_grad()
    def latents(
        self,
        e: Tensor,
        method: str = "hyperldm",
        *,
        generator: str = "hvae",
        gamma: float | None = None,
        steps: int | None = None,
        samples: int | None = None,
        seed: int = 0,
        callback=None,
    ) -> Tensor:
        """Latents (T, Z) that "hyperldm" or "hyperclip" find for question embeddings e (T, D); see `weights`."""
        check_request(method, generator, gamma, steps, samples)
        if method not in ("hyperldm", "hyperclip"):
            raise ValueError(f"method {method!r} has no latents; allowed: hyperldm, hyperclip")
        choice = self.config.get("choices", {}).get(f"{generator}_{method}", {})
        e = e.to(self.device)
        rng = torch.Generator().manual_seed(seed)
        if method == "hyperclip":
            decode = self.decoder(generator)
            if generator == "hnet":
                z = self.module("hnet_maml").z0.expand(len(e), -1)
            else:  # the prior, as in Algorithm 11
                z = torch.randn(1, self.module("hvae").config.latent, generator=rng).to(self.device).expand(len(e), -1)
                z = choice.get("start", 1.0) * z
            return guide_latent(
                z,
                e,
                decode,
                self.module(f"hyperclip_{generator}"),
                steps=choice.get("steps", 10) if steps is None else steps,
                lr=choice.get("lr", 0.1),
                lam=choice.get("lam", 0.01),
                optimizer=choice.get("optimizer", "adam"),
                callback=callback,
            )
        model = self.module(f"{generator}_hyperldm")
        gamma = choice.get("gamma", 1.5) if gamma is None else gamma
        samples = choice.get("samples", 1) if samples is None else samples
        schedule = model.schedule
        sampler = SAMPLERS[choice.get("sampler", "ddim")]
        noise = shared_normal(samples, rng)  # the same for every question, so that none depends on the others
        z_T = noise(torch.empty(samples * len(e), model.config.latent, device=self.device))
        eps_fn = classifier_free(model, e.repeat(samples, 1), gamma)
        steps = min(choice.get("steps", 50), schedule.num_steps) if steps is None else steps
        z = sampler(eps_fn, z_T, schedule, steps=steps, noise=noise, callback=callback)
        return model.unstandardise(z.view(samples, len(e), -1).mean(0))

    def generate(
        self,
        question: str,
        method: str = "hyperldm",
        *,
        generator: str = "hvae",
        gamma: float | None = None,
        steps: int | None = None,
        samples: int | None = None,
        seed: int = 0,
    ) -> Adapter:
        """An adapter for a question in plain words.

        Args:
            question: any text; what the training questions look like is what works.
            method: one of `METHODS`; "hyperldm" (Section 5) and "hyperclip" (Section 4) are the paper's.
            generator: "hvae" or "hnet", for those two.
            gamma: strength of classifier-free guidance; 0 ignores the question, 1 is the conditional model.
            steps: sampling or guidance steps. samples: draws that are averaged. seed: of the noise.
                All three, and gamma, default to what validation tasks chose.

        Raises:
            ValueError: empty question, unknown method or generator, a number out of range; the message says which.
        """
        question = question.strip() if isinstance(question, str) else ""
        if not question:
            raise ValueError("the question is empty")
        check_request(method, generator, gamma, steps, samples)
        if not (isinstance(seed, int) and 0 <= seed <= MAX_SEED):
            raise ValueError(f"seed {seed}; allowed: whole numbers from 0 to {MAX_SEED}")
        if method == "hyperldm":  # the file should say what was used, not that the default was
            choice = self.config.get("choices", {}).get(f"{generator}_hyperldm", {})
            gamma = choice.get("gamma", 1.5) if gamma is None else gamma
            steps = choice.get("steps", 50) if steps is None else steps
            samples = choice.get("samples", 1) if samples is None else samples
        started = time.perf_counter()
        e = self.embed_questions([question])
        w = self.weights(e, method, generator=generator, gamma=gamma, steps=steps, samples=samples, seed=seed)
        provenance = {
            "question": question,
            "method": method,
            "generator": generator,
            "gamma": gamma,
            "steps": steps,
            "samples": samples,
            "seed": seed,
            "backbone_sha256": self.backbone.identity["sha256"],
            "preset": self.config.get("preset"),
            "seconds": round(time.perf_counter() - started, 4),
        }
        return Adapter(None if w is None else w[0].cpu(), self.adapter, self.backbone, provenance)

    @cached_property
    def _wording(self) -> KnownQuestions:
        return KnownQuestions(
            [KnownQuestion(k["question"], tuple(k["answers"]), k.get("family", "")) for k in self.known_questions]
        )

    def nearest_questions(self, question: str, count: int = 5) -> list[KnownQuestion]:
        """The known questions most similar to a question in wording, nearest first."""
        return self._wording.nearest(question, count)

    def suggest_answers(self, question: str) -> list[str]:
        """Candidate answers, from the known questions of nearest wording."""
        return self._wording.suggest_answers(question)

    @torch.no_grad()
    def task_probabilities(self, w: Tensor, e: Tensor, generator: str = "hvae") -> Tensor:
        """Task inference: probability (B, Q) of every question e (Q, D), given weights w (B, P)."""
        return infer_task(self.module(f"hyperclip_{generator}"), w, e)

    def infer_question(self, adapter: Adapter, count: int = 5, generator: str = "hvae") -> list[dict[str, Any]]:
        """Task inference (Figure 3): the known questions that an adapter most likely answers, with probabilities."""
        probability = self.task_probabilities(
            adapter.w[None].to(self.device), self._known_embeddings.to(self.device), generator
        )[0]
        best = probability.topk(min(count, len(probability)))
        return [
            {**self.known_questions[i], "probability": value}
            for i, value in zip(best.indices.tolist(), best.values.tolist(), strict=True)
        ]


def _files(method: str, generator: str) -> list[str]:
    own = "hvae" if generator == "hvae" else "hnet_maml"
    return {"hyperldm": [own, f"{generator}_hyperldm"], "hyperclip": [own, f"hyperclip_{generator}"]}.get(
        method, [method]
    )


def check_request(method: str, generator: str, gamma: float | None, steps: int | None, samples: int | None) -> None:
    """ValueErrors that name the argument, its value and what is allowed."""
    if method not in METHODS:
        raise ValueError(f"method {method!r}; allowed: {', '.join(METHODS)}")
    if generator not in GENERATORS:
        raise ValueError(f"generator {generator!r}; allowed: {', '.join(GENERATORS)}")
    if gamma is not None and not 0.0 <= gamma <= MAX_GAMMA:
        raise ValueError(f"gamma {gamma}; allowed: 0 to {MAX_GAMMA:g}")
    if steps is not None and not (isinstance(steps, int) and 1 <= steps <= 1000):
        raise ValueError(f"steps {steps}; allowed: whole numbers from 1 to 1000")
    if samples is not None and not (isinstance(samples, int) and 1 <= samples <= MAX_SAMPLES):
        raise ValueError(f"samples {samples}; allowed: whole numbers from 1 to {MAX_SAMPLES}")


if __name__ == "__main__":
    from .cli import main

    main()
