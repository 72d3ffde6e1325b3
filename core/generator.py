"""The facade: a question in, an adapter out. What the app, the command line (core/cli.py) and users call."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .adaptation.few_shot import few_shot_from_latents, few_shot_weights
from .backbones import Backbone, Pooling, load_backbone
from .classifier import Adapter, check_answers, check_images, open_image
from .data.known_questions import KnownQuestion, KnownQuestions
from .data.tasks import TaskBatch
from .diffusion.guidance import classifier_free
from .diffusion.samplers import SAMPLERS, shared_normal
from .methods import DEFAULT_GENERATOR, METHODS, SEARCHES, check_request, method_of, row_of
from .networks.base import open_network
from .networks.hyperclip import guide_latent, infer_task
from .networks.weight_generator import WEIGHT_GENERATORS, WeightGenerator
from .networks.weight_model import SharedWeights, WeightModel
from .release.checkpoint import checkpoint_path, files_of, load_module
from .release.default import default_release
from .release.manifest import backbone_directory, read_config

__all__ = ["METHODS", "Adapter", "AdapterGenerator", "check_answers", "check_images", "open_image"]


class AdapterGenerator:
    """Everything a release directory holds, loaded on first use.

    A release is `config.json` (base network, choices made on validation tasks, known questions), `backbone/` and one
    safetensors file per model.
    """

    def __init__(self, directory: Path | str, config: dict[str, Any], device: torch.device | str = "cpu") -> None:
        self.directory, self.config, self.device = Path(directory), config, torch.device(device)
        self.network = open_network(config["network"])
        self._modules: dict[str, torch.nn.Module] = {}

    @classmethod
    def from_pretrained(
        cls,
        path_or_hub_id: Path | str | None = None,
        *,
        revision: str | None = None,
        device: torch.device | str = "cpu",
    ) -> AdapterGenerator:
        """Load a release from a local directory, or from the Hub, where it is downloaded once and then cached.

        Args:
            path_or_hub_id: a directory, `user/repo` or `user/repo@revision` (default: the shipped release).
            revision: a branch, tag or commit on the Hub (default: main).

        Raises:
            ValueError: neither a directory nor a repository, a release that is not whole or of a newer format, or a
                `core.release.hub.HubError` that says what to do.
        """
        directory, name = Path(default_release() if path_or_hub_id is None else path_or_hub_id), None
        if not directory.is_dir():
            from .release.hub import HubError, pull  # with a client that takes a while to import

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

    def choice(self, row: str) -> dict[str, Any]:
        """What validation tasks chose for a row such as "hvae_hyperldm"; empty where nothing was chosen."""
        return self.config.get("choices", {}).get(row, {})

    def scale(self, row: str) -> float:
        """The factor on cosines that makes a row's probabilities mean what they say: the backbone's own for plain CLIP,
        one fitted to validation tasks for the others; the training scale in a release that has none."""
        return self.config.get("scales", {}).get(row, self.network.scale)

    def has(self, method: str, generator: str = DEFAULT_GENERATOR) -> bool:
        """Whether this release holds what the method needs."""
        if method == "clip":
            return True
        files = [row_of(method, generator), *([WEIGHT_GENERATORS[generator].checkpoint] if method in SEARCHES else [])]
        return all(files_of(checkpoint_path(self.directory, name)) for name in files)

    def has_row(self, row: str) -> bool:
        """Whether this release holds what a row such as "hvae_hyperldm" needs."""
        return self.has(*method_of(row))

    def module(self, name: str) -> Any:
        """A model of this release by file name, loaded once."""
        if name not in self._modules:
            self._modules[name] = load_module(checkpoint_path(self.directory, name), self.device)
        return self._modules[name]

    def weight_generator(self, name: str) -> WeightGenerator:
        """The weight generator called `name`, "hvae" or "hnet"."""
        return self.module(WEIGHT_GENERATORS[name].checkpoint)

    @torch.no_grad()
    def weights(
        self,
        e: Tensor,
        method: str = "hyperldm",
        *,
        generator: str = DEFAULT_GENERATOR,
        gamma: float | None = None,
        steps: int | None = None,
        samples: int | None = None,
        seed: int = 0,
        callback: Callable | None = None,
    ) -> Tensor | None:
        """Weights w (T, P) for question embeddings e (T, D); None for plain CLIP. The core of `generate`.

        `gamma`, `steps` and `samples` default to what validation tasks chose. Several samples of HyperLDM are averaged
        as latents, before the decoder: one adapter comes out, and the average is nearer to what a question says for
        sure than any single draw.
        """
        check_request(method, generator, gamma, steps, samples)
        if method == "clip":
            return None
        if method not in SEARCHES:
            return self.module(method).weights(e.to(self.device))
        z = self.latents(
            e, method, generator=generator, gamma=gamma, steps=steps, samples=samples, seed=seed, callback=callback
        )
        return self.weight_generator(generator).decode(z)

    @torch.no_grad()
    def latents(
        self,
        e: Tensor,
        method: str = "hyperldm",
        *,
        generator: str = DEFAULT_GENERATOR,
        gamma: float | None = None,
        steps: int | None = None,
        samples: int | None = None,
        seed: int = 0,
        callback: Callable | None = None,
    ) -> Tensor:
        """Latents (T, Z) that "hyperldm" or "hyperclip" find for question embeddings e (T, D); see `weights`.

        What is found for a question is a function of it and of the seed, whichever questions stand beside it.
        """
        check_request(method, generator, gamma, steps, samples)
        if method not in SEARCHES:
            raise ValueError(f"method {method!r} has no latents; allowed: {', '.join(SEARCHES)}")
        choice, e = self.choice(row_of(method, generator)), e.to(self.device)
        rng = torch.Generator().manual_seed(seed)
        model = self.module(row_of(method, generator))
        if method == "hyperclip":
            made = self.weight_generator(generator)
            return guide_latent(
                made.start(rng, choice.get("start", 1.0)).expand(len(e), -1),
                e,
                made.decode,
                model,
                steps=choice.get("steps", 10) if steps is None else steps,
                lr=choice.get("lr", 0.1),
                lam=choice.get("lam", 0.01),
                optimizer=choice.get("optimizer", "adam"),
                callback=callback,
            )
        gamma, steps, samples = self._sampling(choice, gamma, steps, samples)
        sampler = SAMPLERS[choice.get("sampler", "ddim")]
        noise = shared_normal(samples, rng)  # the same for every question, so that none depends on the others
        z_T = noise(torch.empty(samples * len(e), model.latent, device=self.device))
        eps_fn = classifier_free(model, e.repeat(samples, 1), gamma)
        z = sampler(eps_fn, z_T, model.schedule, steps=steps, noise=noise, callback=callback)
        return model.unstandardise(z.view(samples, len(e), -1).mean(0))

    @staticmethod
    def _sampling(
        choice: dict[str, Any], gamma: float | None, steps: int | None, samples: int | None
    ) -> tuple[float, int, int]:
        """gamma, steps and samples of HyperLDM: as asked for, else as validation tasks chose."""
        return (
            choice.get("gamma", 1.5) if gamma is None else gamma,
            choice.get("steps", 50) if steps is None else steps,
            choice.get("samples", 1) if samples is None else samples,
        )

    def generate(
        self,
        question: str,
        method: str = "hyperldm",
        *,
        generator: str = DEFAULT_GENERATOR,
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
        check_request(method, generator, gamma, steps, samples, seed)
        if method == "hyperldm":  # the file should say what was used, not that the default was
            gamma, steps, samples = self._sampling(self.choice(f"{generator}_hyperldm"), gamma, steps, samples)
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
            "scale": self.scale(row_of(method, generator)),
            "backbone_sha256": self.backbone.identity["sha256"],
            "preset": self.config.get("preset"),
            "seconds": round(time.perf_counter() - started, 4),
        }
        return Adapter(None if w is None else w[0].cpu(), self.network, self.backbone, provenance)

    def few_shot_weights(self, support: TaskBatch, row: str, lr: float, steps: int = 50, seed: int = 0) -> Tensor:
        """Weights w (T, P) after gradient descent on support sets (Table 4).

        Args:
            row: what is adapted is the row's own parameter (Table 2): weights, a latent, the whitened question; of
                "hvae_hyperldm" and its like the latent that was generated; of "clip" a fresh network, another one for
                every training seed and `seed`.
        """
        how = {"steps": steps, "lr": lr}
        method, name = method_of(row)
        if method in SEARCHES:
            z = self.latents(support.question, method, generator=name, seed=seed)
            return few_shot_from_latents(self.network, self.weight_generator(name), z, support, **how)
        return few_shot_weights(self.network, self._few_shot_model(row, seed), support, **how)

    def _few_shot_model(self, row: str, seed: int) -> WeightModel:
        if row != "clip":
            return self.module(row)
        rng = torch.Generator().manual_seed(self.config.get("seed", 0) + seed)
        return SharedWeights(network=self.network, rng=rng).to(self.device).requires_grad_(False)

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
    def task_probabilities(self, w: Tensor, e: Tensor, generator: str = DEFAULT_GENERATOR) -> Tensor:
        """Task inference: probability (B, Q) of every question e (Q, D), given weights w (B, P)."""
        return infer_task(self.module(f"{generator}_hyperclip"), w, e)

    def infer_question(
        self, adapter: Adapter, count: int = 5, generator: str = DEFAULT_GENERATOR
    ) -> list[dict[str, Any]]:
        """Task inference (Figure 3): the known questions that an adapter most likely answers, with probabilities.

        Raises:
            ValueError: plain CLIP, which has no weights to read.
        """
        if adapter.w is None:
            raise ValueError("plain CLIP has no adapter weights, and so no question that they answer")
        probability = self.task_probabilities(
            adapter.w[None].to(self.device), self._known_embeddings.to(self.device), generator
        )[0]
        best = probability.topk(min(count, len(probability)))
        return [
            {**self.known_questions[i], "probability": value}
            for i, value in zip(best.indices.tolist(), best.values.tolist(), strict=True)
        ]


if __name__ == "__main__":
    from .cli import main

    main()
