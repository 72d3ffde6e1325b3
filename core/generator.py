"""The facade: a question in, an adapter out. What the app, the command line (core/cli.py) and users call."""

from __future__ import annotations

import sys

if __name__ == "__main__":  # before PyTorch, so that --help waits for nothing
    from .cli import main

    sys.exit(main())

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

from .backbones import Backbone, Deferred, load_backbone
from .backbones.questions import QuestionEncoder, beside, open_question_encoder, question_part
from .cache import EmbeddingCache, content_of, once
from .classifier import Adapter, check_answers, check_images, open_image
from .data.known_questions import KnownQuestion, KnownQuestions
from .methods import DEFAULT_GENERATOR, METHODS, check_request, decoder_of, row_of
from .models import ReleaseModels
from .release.checkpoint import files_of, load_model
from .release.default import default_release
from .release.manifest import (
    BACKBONE,
    BACKBONE_SHA256,
    KNOWN,
    SENTENCE,
    backbone_directory,
    encoder_directory,
    read_config,
    verify,
)

if TYPE_CHECKING:
    from PIL import Image

_REMEMBERED = 1024  # embeddings of each kind, about 3 MB

__all__ = ["METHODS", "Adapter", "AdapterGenerator", "check_answers", "check_images", "open_image"]


class AdapterGenerator(ReleaseModels):
    """A whole release: its models, its backbone and its known questions.

    A release is `config.json`, `backbone/` and one safetensors file per model.
    """

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
        path_or_hub_id = default_release() if path_or_hub_id is None else path_or_hub_id
        directory, name = Path(path_or_hub_id), None
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

    def __init__(self, directory: Path | str, config: dict[str, Any], device: torch.device | str = "cpu") -> None:
        super().__init__(directory, config, device)
        self._questions_seen, self._answers_seen, self._images_seen, self._candidates_seen = (
            EmbeddingCache(_REMEMBERED) for _ in range(4)
        )

    @once
    def backbone(self) -> Backbone:
        """What embeds pictures and answers; a ValueError if it is damaged, or has not the size of the network."""
        local = backbone_directory(self.directory, self.config)
        self._verify_folders(BACKBONE, SENTENCE)  # a photo tower reads answers with the sentence encoder
        result = load_backbone(self.config["backbone"] if local is None else f"local-dir:{local}", self.device)
        if result.dim != self.network.dim:
            raise ValueError(
                f"{self.directory}: its backbone makes embeddings of size {result.dim}, its network is for "
                f"{self.network.dim}"
            )
        expected = self.config.get(BACKBONE_SHA256)
        if expected not in (None, found := result.identity["sha256"]):
            raise ValueError(f"{self.directory}: made for the backbone {expected}, not for {found} that is there")
        return result

    @property
    def backbone_sha256(self) -> str:
        """The digest of the backbone that this release's adapters are for, which is not loaded where its config has
        it."""
        return self.config.get(BACKBONE_SHA256) or self.backbone.identity["sha256"]

    @once
    def question_encoder(self) -> QuestionEncoder:
        """What makes task embeddings e."""
        directory = encoder_directory(self.directory)
        self._verify_folders(SENTENCE)
        return open_question_encoder(self.config["question_encoder"], lambda: self.backbone, directory, self.device)

    def _verify_folders(self, *folders: str) -> None:
        """A ValueError unless the files of encoders hold what config.json lists."""
        listed = [path for path in self.config.get("files", {}) if path.partition("/")[0] in folders]
        verify(self.directory, self.config, listed)

    @once
    def known_questions(self) -> list[dict[str, Any]]:
        """Training questions: dictionaries with question, answers, family."""
        return self.config.get("questions", [])

    @once
    def known_embeddings(self) -> Tensor:
        """Task embeddings (Q, E) of the known questions: as stored, or made now in a release that has none."""
        if self._stored is not None:
            return F.normalize(self._stored["e"], dim=-1)  # half precision on disk
        known = self.known_questions
        return self.embed_questions([k["question"] for k in known], [k["answers"] for k in known])

    @once
    def _stored(self) -> dict[str, Tensor] | None:
        """What the release keeps of its known questions: embeddings "e" (Q, E), and the regression on their answers."""
        path = self.directory / KNOWN
        if not files_of(path):
            return None
        found = load_model(self.file(path.stem), "questions")[1]
        if found.keys() != {"e", "mean", "map"} or found["e"].ndim != 2:
            raise ValueError(f"{path}: holds {', '.join(sorted(found))}; expected a table e, its mean and a map")
        if len(found["e"]) != (count := len(self.known_questions)):
            raise ValueError(f"{path} has {len(found['e'])} questions, the release's config.json {count}")
        size, answers = found["e"].shape[1], len({a for known in self.known_questions for a in known["answers"]})
        size //= 1 + self.config["question_encoder"].get("answers", False)  # the map is of questions alone
        if (size, answers) != tuple(found["map"].shape) or found["mean"].shape != (size,):
            raise ValueError(f"{path}: tables of sizes that do not go together, or with the answers of config.json")
        return found

    def embed_questions(self, questions: Sequence[str], answers: Sequence[Sequence[str]] | None = None) -> Tensor:
        """Task embeddings e (B, E), made as this release's models were trained.

        Args:
            answers: the candidates of each question, for a release whose models read these too (default: those that
                it suggests).

        Raises:
            ValueError: candidates are needed, and there is no known question to take them from.
        """
        encoder, question = self.question_encoder, self._embed_alone(questions)
        if not encoder.reads_answers:
            return question
        if answers is None:
            if not self.known_questions:
                raise ValueError(f"{self.directory}: its models read candidate answers, too; please give some")
            answers = self.suggest_answers_to(questions)
        return beside(question, self._candidates_seen([tuple(own) for own in answers], encoder.candidates))

    def _embed_alone(self, questions: Sequence[str]) -> Tensor:
        """Unit embeddings of questions, without candidate answers."""
        return self._questions_seen(questions, self.question_encoder.encode)

    def embed_answers(self, answers: Sequence[str]) -> Tensor:
        """Embeddings (C, D) of candidate answers."""
        return self._answers_seen(answers, self.backbone.encode_texts)

    def embed_images(self, images: Sequence[Image.Image]) -> Tensor:
        """Embeddings (N, D) of pictures."""
        from .data.images import as_shown  # imports Pillow

        # Palette, transparency and orientation are no pixels, but change what is seen.
        return self._images_seen([as_shown(image) for image in images], self.backbone.encode_images, content_of)

    def generate(
        self,
        question: str,
        method: str = "hyperldm",
        *,
        answers: Sequence[str] | None = None,
        generator: str = DEFAULT_GENERATOR,
        gamma: float | None = None,
        steps: int | None = None,
        samples: int | None = None,
        sampler: str | None = None,
        seed: int = 0,
    ) -> Adapter:
        """An adapter for a question in plain words.

        Args:
            question: any text; what the training questions look like is what works.
            method: one of `METHODS`; "hyperldm" (Section 5) and "hyperclip" (Section 4) are the paper's.
            answers: the candidates, which a release may read besides the question (default: those that it suggests).
            generator: "hvae" or "hnet", for those two.
            gamma: strength of classifier-free guidance; 0 ignores the question, 1 is the conditional model.
            steps: sampling or guidance steps. samples: draws that are averaged. sampler: one of `SAMPLERS`. All three,
                and gamma, default to what validation tasks chose. seed: of the noise.

        What a method does not read (`core.methods.unread`) does nothing, so that methods can be asked alike.

        Raises:
            ValueError: empty question, unknown method or generator, a number out of range; the message says which.
        """
        question = question.strip() if isinstance(question, str) else ""
        if not question:
            raise ValueError("the question is empty")
        check_request(method, generator, gamma, steps, samples, seed, sampler=sampler)
        started = time.perf_counter()
        reads_answers = self.config["question_encoder"].get("answers", False)
        if answers is not None:
            answers = check_answers(answers)
        elif reads_answers:
            answers = self.suggest_answers(question) or None
        e = self.embed_questions([question], None if answers is None else [answers])
        how = {"gamma": gamma, "steps": steps, "samples": samples, "sampler": sampler}
        w = self.weights(e, method, generator=generator, seed=seed, **how)
        if w is not None and not w.isfinite().all():
            raise ValueError(
                f"{self.directory}: {row_of(method, generator)} gives weights that are infinite or NaN for "
                f"{question[:60]!r}; its files may be damaged"
            )
        provenance = {
            "question": question,
            **({"answers": answers} if reads_answers else {}),
            "method": method,
            "generator": decoder_of(method, generator),
            **self.used(method, generator, **how),
            "seed": seed,
            "scale": self.scale(row_of(method, generator)),
            "backbone_sha256": self.backbone_sha256,
            "preset": self.config.get("preset"),
            "seconds": round(time.perf_counter() - started, 4),
        }
        return Adapter(None if w is None else w[0].cpu(), self.network, Deferred(lambda: self.backbone), provenance)

    @once
    def _known(self) -> KnownQuestions:
        known = [KnownQuestion(k["question"], tuple(k["answers"]), k.get("family", "")) for k in self.known_questions]
        fitted = None if self._stored is None else (self._stored["mean"], self._stored["map"])
        return KnownQuestions(known, question_part(self.known_embeddings, self.question_encoder), fitted)

    def suggest_answers(self, question: str) -> list[str]:
        """Candidate answers: those that the question names ("a cat or a dog"), or those of near known ones."""
        return self.suggest_answers_to([question])[0]

    def suggest_answers_to(self, questions: Sequence[str]) -> list[list[str]]:
        """`suggest_answers` of many questions, embedded at once."""
        e = self._embed_alone(questions)
        return [self._known.suggest_answers(question, row) for question, row in zip(questions, e, strict=True)]

    def nearest_questions(self, question: str, count: int = 5) -> list[KnownQuestion]:
        """The known questions that ask for the most similar answers, nearest first."""
        return self._known.nearest(self._embed_alone([question])[0], count)

    def infer_question(self, adapter: Adapter, count: int = 5, generator: str | None = None) -> list[dict[str, Any]]:
        """Task inference (Figure 3): the known questions that an adapter most likely answers, with probabilities.
        HyperCLIP of `generator` reads it, by default of the one that made it.

        Raises:
            ValueError: plain CLIP, which has no weights to read, or an adapter of another base network.
        """
        if adapter.w is None:
            raise ValueError("plain CLIP has no adapter weights, and so no question that they answer")
        if adapter.network != self.network:
            raise ValueError(f"the adapter is for {adapter.network!r}, this release for {self.network!r}")
        reader = generator or self.reader_of(adapter.provenance.get("generator"))
        w, e = adapter.w[None].to(self.device), self.known_embeddings.to(self.device)
        probability = self.task_probabilities(w, e, reader)[0]
        best = probability.topk(min(count, len(probability)))
        return [
            {**self.known_questions[i], "probability": value}
            for i, value in zip(best.indices.tolist(), best.values.tolist(), strict=True)
        ]
