"""The models of a release, on embeddings alone: question embeddings in, latents and weights out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from threading import RLock
from typing import Any

import torch
from torch import Tensor

from .adaptation.few_shot import few_shot_from_latents, few_shot_weights
from .backbones.questions import question_dim
from .data.tasks import TaskBatch
from .diffusion.guidance import classifier_free, gradient_guidance
from .diffusion.samplers import SAMPLERS, shared_normal
from .methods import DEFAULT_GENERATOR, METHODS, REGRESSIONS, SEARCHES, check_request, decoder_of, method_of, row_of
from .networks.base import open_network
from .networks.hyperclip import HyperCLIP, embed_latents, guide_latent, infer_task
from .networks.hyperldm import HyperLDM
from .networks.trunk import LatentMap
from .networks.weight_generator import WEIGHT_GENERATORS, WeightGenerator
from .networks.weight_model import Saved, SharedWeights, WeightModel
from .release.checkpoint import checkpoint_path, files_of, load_module
from .release.manifest import CONFIG, verify


class ReleaseModels:
    """Everything a release directory holds but its backbone, loaded on first use.

    Args:
        directory: where the models are.
        config: the release's config.json: base network, choices made on validation tasks, scales.
    """

    def __init__(self, directory: Path | str, config: dict[str, Any], device: torch.device | str = "cpu") -> None:
        self.directory, self.config, self.device = Path(directory), config, torch.device(device)
        self.network = open_network(config["network"])
        self._modules: dict[str, torch.nn.Module] = {}
        self._latent_embeddings: dict[str, Callable[[Tensor], Tensor]] = {}
        self._reading = RLock()  # a server's threads may ask for a model at once; it is read once

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
        decoder = decoder_of(method, generator)
        files = [row_of(method, generator), *([WEIGHT_GENERATORS[decoder].checkpoint] if decoder else [])]
        return all(files_of(checkpoint_path(self.directory, name)) for name in files)

    def has_row(self, row: str) -> bool:
        """Whether this release holds what a row such as "hvae_hyperldm" needs."""
        return self.has(*method_of(row))

    def file(self, name: str) -> Path:
        """Where this release keeps the model or table called `name`, whose files hold what its config.json lists; a
        ValueError that names one that does not."""
        path = checkpoint_path(self.directory, name)
        verify(self.directory, self.config, [file.name for file in files_of(path)])
        return path

    def module(self, name: str) -> Any:
        """A model of this release by file name, loaded once.

        Raises:
            ValueError: there is none of that name, it is damaged, or it is not what this release needs by that name.
        """
        with self._reading:
            if name not in self._modules:
                try:
                    module = load_module(self.file(name), self.device)
                except FileNotFoundError:
                    raise ValueError(f"this release holds no {name}; methods that it holds: {self._held()}") from None
                self._check_fits(name, module)
                self._modules[name] = module
            return self._modules[name]

    def _held(self) -> str:
        """The methods that this release holds, those that search with their generators."""
        held = {method: [g for g in WEIGHT_GENERATORS.names() if self.has(method, g)] for method in METHODS}
        return ", ".join(
            f"{method} ({', '.join(found)})" if method in SEARCHES else method
            for method, found in held.items()
            if found
        )

    def _check_fits(self, name: str, module: Saved) -> None:
        """A ValueError unless a module is of the kind and the sizes that this release's network and questions need."""
        where, sizes = checkpoint_path(self.directory, name), module.sizes()
        kinds: dict[str, type] = dict.fromkeys(REGRESSIONS, LatentMap)
        for generator in WEIGHT_GENERATORS.names():
            kinds |= {row_of("hyperldm", generator): HyperLDM, row_of("hyperclip", generator): HyperCLIP}
            kinds[WEIGHT_GENERATORS[generator].checkpoint] = WEIGHT_GENERATORS[generator]
        if not isinstance(module, kinds.get(name, WeightModel if name in METHODS else Saved)):
            raise ValueError(f"{where}: holds a {module.name!r}, which is no {name}")
        network = sizes.get("network", self.network)
        if network != self.network or sizes.get("num_params", network.num_params) != network.num_params:
            raise ValueError(f"{where}: made for another network than {CONFIG} says, {self.network.spec()}")
        spec = self.config.get("question_encoder")
        size = sizes.get("question_dim", sizes.get("dim"))
        if spec and size not in (None, expected := question_dim(spec, self.network.dim)):
            raise ValueError(f"{where}: made for questions of size {size}; those of {CONFIG} have {expected}")

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
        gradient_scale: float = 0.0,
        sampler: str | None = None,
        callback: Callable | None = None,
    ) -> Tensor | None:
        """Weights w (T, P) for question embeddings e (T, E); None for plain CLIP. The core of `generate`.

        `gamma`, `steps`, `samples` and `sampler` default to what validation tasks chose. Several samples are averaged
        as latents, before the decoder: one adapter comes out, and the average is nearer to what a question says for
        sure than any single draw.
        """
        check_request(method, generator, gamma, steps, samples, seed, gradient_scale, sampler)
        if method == "clip":
            return None
        decoder = decoder_of(method, generator)
        if decoder is None:
            return self.module(method).weights(e.to(self.device))
        how = {"gamma": gamma, "steps": steps, "samples": samples, "seed": seed, "sampler": sampler}
        how |= {"gradient_scale": gradient_scale, "callback": callback}
        z = self.latents(e, method, generator=generator, **how)
        return self.weight_generator(decoder).decode(z)

    def guidance_steps(self, generator: str) -> int:
        """How many steps HyperCLIP guidance takes by default."""
        return self.choice(f"{generator}_hyperclip").get("steps", 10)

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
        gradient_scale: float = 0.0,
        sampler: str | None = None,
        callback: Callable | None = None,
    ) -> Tensor:
        """Latents (T, Z) that a search or a regression finds for question embeddings e (T, E); see `weights`.

        What is found for a question is a function of it and of the seed, whichever questions stand beside it.

        Args:
            gradient_scale: how strongly HyperCLIP's gradient guides HyperLDM's samples besides (Eq. 11).
            callback: called at every step of a search: with (i, t, z_t, predicted z_0) of HyperLDM's sampler, with
                (step, z, cosine) of HyperCLIP's guidance.
        """
        check_request(method, generator, gamma, steps, samples, seed, gradient_scale, sampler)
        decoder, row = decoder_of(method, generator), row_of(method, generator)
        if decoder is None:
            raise ValueError(f"method {method!r} has no latents; allowed: {', '.join((*SEARCHES, *REGRESSIONS))}")
        choice, e = self.choice(row), e.to(self.device)
        rng = torch.Generator().manual_seed(seed)
        model = self.module(row)
        if method == "hyperclip":
            start = self.weight_generator(generator).start(rng, choice.get("start", 1.0))
            return guide_latent(
                start.expand(len(e), -1),
                model.embed_questions(e),
                self._latent_embedding(generator),
                steps=self.guidance_steps(generator) if steps is None else steps,
                lr=choice.get("lr", 0.1),
                lam=choice.get("lam", 0.01),
                optimizer=choice.get("optimizer", "adam"),
                callback=callback,
            )
        where = f"{self.directory}: {row}"
        if model.latent != (size := self.weight_generator(decoder).latent):
            raise ValueError(f"{where} makes latents of size {model.latent}, its generator takes {size}")
        if method in REGRESSIONS:
            return model.latents(e)
        own_steps = steps is None
        T, (gamma, steps, samples, sampler) = len(e), self._sampling(choice, gamma, steps, samples, sampler)
        if own_steps and steps > model.schedule.num_steps:
            raise ValueError(f"{where} is to take {steps} steps by {CONFIG}; it knows {model.schedule.num_steps}")
        noise = shared_normal(samples, rng)  # the same for every question, so that none depends on the others
        z_T = noise(torch.empty(samples * T, model.latent, device=self.device))
        log_prob = self._hyperclip_log_prob(generator, e.repeat(samples, 1), model) if gradient_scale else None
        eps_fn = classifier_free(model, e, gamma)
        if log_prob is not None:
            eps_fn = gradient_guidance(eps_fn, log_prob, model.schedule, gradient_scale)
        z = SAMPLERS[sampler](eps_fn, z_T, model.schedule, steps=steps, noise=noise, callback=callback)
        return model.unstandardise(z.view(samples, T, -1).mean(0))

    def _hyperclip_log_prob(self, generator: str, e: Tensor, model: HyperLDM) -> Callable[[Tensor], Tensor]:
        """HyperCLIP's scaled cosine (B,) of the weights that standardised latents (B, Z) decode to and their questions
        e (B, E): the classifier of Eq. 11."""
        clip, embed = self.module(row_of("hyperclip", generator)), self._latent_embedding(generator)
        target, scale = clip.embed_questions(e), clip.scale
        return lambda z0: scale * (embed(model.unstandardise(z0)) * target).sum(-1)

    def _latent_embedding(self, generator: str) -> Callable[[Tensor], Tensor]:
        """What HyperCLIP makes of the weights that latents of a generator decode to, prepared once."""
        with self._reading:
            if generator not in self._latent_embeddings:
                clip = self.module(row_of("hyperclip", generator))
                self._latent_embeddings[generator] = embed_latents(self.weight_generator(generator), clip)
            return self._latent_embeddings[generator]

    @staticmethod
    def _sampling(
        choice: dict[str, Any], gamma: float | None, steps: int | None, samples: int | None, sampler: str | None
    ) -> tuple[float, int, int, str]:
        """gamma, steps, samples and sampler of HyperLDM: as asked for, else as validation tasks chose."""
        return (
            choice.get("gamma", 1.5) if gamma is None else gamma,
            choice.get("steps", 50) if steps is None else steps,
            choice.get("samples", 1) if samples is None else samples,
            choice.get("sampler", "ddim") if sampler is None else sampler,
        )

    def used(
        self,
        method: str,
        generator: str,
        gamma: float | None,
        steps: int | None,
        samples: int | None,
        sampler: str | None,
    ) -> dict[str, Any]:
        """What `generate` takes for these arguments: values instead of defaults, None for what a method does not
        read."""
        if method == "hyperldm":
            gamma, steps, samples, sampler = self._sampling(
                self.choice(f"{generator}_hyperldm"), gamma, steps, samples, sampler
            )
        else:
            gamma = samples = sampler = None
            searches = method == "hyperclip"
            steps = (self.guidance_steps(generator) if steps is None else steps) if searches else None
        return {"gamma": gamma, "steps": steps, "samples": samples, "sampler": sampler}

    def few_shot_weights(self, support: TaskBatch, row: str, lr: float, steps: int = 50, seed: int = 0) -> Tensor:
        """Weights w (T, P) after gradient descent on support sets (Table 4).

        Args:
            row: what is adapted is the row's own parameter (Table 2): weights, a latent, the whitened question; of
                "hvae_hyperldm" and its like the latent that was generated; of "clip" a fresh network, another one for
                every training seed and `seed`.
        """
        how = {"steps": steps, "lr": lr}
        method, name = method_of(row)
        if decoder := decoder_of(method, name):
            z = self.latents(support.question, method, generator=name, seed=seed)
            return few_shot_from_latents(self.network, self.weight_generator(decoder), z, support, **how)
        return few_shot_weights(self.network, self._few_shot_model(row, seed), support, **how)

    def _few_shot_model(self, row: str, seed: int) -> WeightModel:
        if row != "clip":
            return self.module(row)
        rng = torch.Generator().manual_seed(self.config.get("seed", 0) + seed)
        return SharedWeights(network=self.network, rng=rng).to(self.device).requires_grad_(False)

    def reader_of(self, generator: str | None) -> str:
        """The weight generator whose HyperCLIP reads the weights of `generator`: its own where there is one, else the
        default's or any that there is."""
        there = [name for name in WEIGHT_GENERATORS.names() if self.has("hyperclip", name)]
        return next((name for name in (generator, DEFAULT_GENERATOR, *there) if name in there), DEFAULT_GENERATOR)

    @torch.no_grad()
    def task_probabilities(self, w: Tensor, e: Tensor, generator: str = DEFAULT_GENERATOR) -> Tensor:
        """Task inference: probability (B, Q) of every question e (Q, E), given weights w (B, P)."""
        return infer_task(self.module(f"{generator}_hyperclip"), w, e)
