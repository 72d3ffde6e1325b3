"""The model card of a release directory: data, command, metrics, licence, with the Hub's metadata on top."""

from __future__ import annotations

from typing import Any

import torch

from train.run import Run, commit

_TEMPLATE = """---
library_name: pytorch
license: apache-2.0
tags: [hypernetworks, meta-learning, diffusion, clip-adapter, weight-generation]
---

# Adapters from questions: `{preset}`, seed {seed}

Models that turn a question into the weights of a CLIP-Adapter (P = {params:,}), after *Meta-Learning via
Classifier(-free) Diffusion Guidance* (Nava et al., TMLR 2023): `hvae` and `hnet_maml` decode latents to weights,
`*_hyperldm` sample latents for a question, `hyperclip_*` embed weights beside questions, the rest are baselines.

**Data.** {dataset}: questions about drawn scenes of OpenMoji glyphs. The models know nothing else. Glyphs: OpenMoji,
CC BY-SA 4.0.

**Made by** `python train/run_all.py --preset {preset} --seed {seed}`
at commit {commit}, PyTorch {torch}, on {device}.

**Use.** `AdapterGenerator.from_pretrained("...").generate("What colour is the badge behind the dog?")`;
see the project's README.

**Metrics** of the stages, accuracies on validation tasks unless said otherwise; test results: `python eval/table1.py`.

| stage | seconds | metrics |
|---|---|---|
{rows}

**Bias.** Scenes follow arbitrary habits drawn at random (which thing tends to have which colour, place and
company); the models have learned to expect them.

**Licence.** Apache-2.0 for the weights' code; the weights were trained on CC BY-SA 4.0 artwork.
"""


def write_card(run: Run, records: dict[str, dict[str, Any]]) -> None:
    """Write OUTPUT/README.md from the records of the stages."""
    rows = "\n".join(
        f"| {name} | {record['seconds']:.0f} | "
        + ", ".join(f"{k} {v:.3f}" for k, v in record["metrics"].items())
        + " |"
        for name, record in records.items()
    )
    card = _TEMPLATE.format(
        preset=run.preset.name,
        seed=run.seed,
        params=run.preset.adapter.num_params,
        dataset=run.dataset.identity["name"],
        commit=commit(),
        torch=torch.__version__,
        device=run.device,
        rows=rows,
    )
    (run.output / "README.md").write_text(card)
