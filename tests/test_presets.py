"""The paper's numbers, as far as they can be checked without training."""

from dataclasses import replace

import pytest
import torch

from core.networks.hvae import HVAE
from core.networks.hyperclip import HyperCLIP
from core.networks.hyperldm import HyperLDM
from train.pipeline.flags import open_run, parser
from train.presets import PRESET_NAMES, get_preset, shortened

PAPER = get_preset("metavqa")


def count(make, part=lambda name: True) -> int:
    with torch.device("meta"):  # shapes without memory
        return sum(p.numel() for name, p in make().named_parameters() if part(name))


def test_parameter_counts_follow_from_the_papers_widths():
    D, H, P, Z = 768, 256, 394_240, 32
    assert PAPER.base_network(D).num_params == P == 2 * D * H + D + H
    layer = lambda inputs, outputs: (inputs + 1) * outputs
    assert count(lambda: HVAE(PAPER.hvae, num_params=P)) == (
        layer(P, 512) + layer(512, 256) + layer(256, 2 * Z) + layer(Z, 256) + layer(256, 512) + layer(512, P)
    )
    assert count(lambda: HyperCLIP(PAPER.hyperclip["hvae"], num_params=P, dim=D)) == layer(P, 256) + layer(256, D) + 1
    context = 150 + D  # time and question, at the inlet and at every block
    blocks = sum(layer(a + context, b) + a * b + 2 * a for a, b in ((8192, 16384), (16384, 8192)))
    plain = layer(Z + context, 8192) + blocks + layer(8192, Z)
    gates = sum(layer(b, b // 16) + layer(b // 16, b) for b in (16384, 8192))
    denoiser = lambda: HyperLDM(PAPER.hyperldm, latent=PAPER.latent("hvae"), dim=D)
    assert count(denoiser, lambda name: "gate" not in name) == plain == 567_558_176
    assert count(denoiser) == plain + gates == 609_527_328  # with squeeze-and-excitation that is really used


def test_steps_are_the_papers_epochs():
    """Table 3 and Appendix A.7: passes over 870 training tasks."""
    epochs = {
        "uncond_multitask": 300,
        "mnet_maml": 500,
        "mnet_fomaml": 500,
        "hnet_maml": 100,
        "cond_multitask": 60,
        "cond_multitask_film": 300,
        "cond_bottleneck": 60,
        "cond_hnet_maml": 200,
    }
    for row, config in {**PAPER.multitask, **PAPER.maml}.items():
        assert config.steps * 32 / 870 == pytest.approx(epochs[row], rel=1e-3) and config.tasks == 32
    training = (PAPER.hvae_training, 2000), (PAPER.hyperclip_training["hvae"], 600), (PAPER.diffusion, 1000)
    assert all(c.steps * c.batch / 870 == pytest.approx(n, rel=1e-3) for c, n in training)


def test_shortened_changes_steps_alone():
    short = shortened(PAPER, 0.01)
    assert short.hvae_training.steps == 544 and short.maml["mnet_maml"].steps == 136
    assert short.adaptations == PAPER.adaptations and short.hyperldm == PAPER.hyperldm
    assert shortened(PAPER, 1e-9).diffusion.steps == 1 and shortened(PAPER, 1.0) == PAPER
    with pytest.raises(ValueError, match="allowed: more than 0"):
        shortened(PAPER, 0.0)


def test_the_simulation_differs_in_its_data_alone():
    """Its questions are no sentences: the dataset embeds them itself, and nobody can put them in other words."""
    sim = get_preset("metavqa_sim")
    asked = {"question_encoder": PAPER.question_encoder, "other_words": PAPER.other_words}
    assert replace(sim, name="metavqa", backbone=PAPER.backbone, dataset=PAPER.dataset, **asked) == PAPER


@pytest.mark.parametrize("change, flag", [("descriptors=0.5", "--descriptors"), ("name=mine", "--preset")])
def test_settings_that_have_flags_of_their_own_are_refused(change, flag, tmp_path):
    with pytest.raises(ValueError, match=f"--set {change}: {flag} says that"):
        open_run(parser("").parse_args(["--preset", "tiny", "--work", str(tmp_path), "--set", change]))


def test_names():
    assert {get_preset(name).name for name in PRESET_NAMES} == set(PRESET_NAMES)


def test_a_backbone_that_is_made_otherwise_has_a_folder_of_its_own(tmp_path):
    """It would overwrite the shipped one, which every shipped release is tied to."""
    flags = ["--preset", "emoji", "--work", str(tmp_path)]
    shipped = open_run(parser("").parse_args(flags)).preset.backbone
    same = open_run(parser("").parse_args([*flags, "--set", "film.cond_noise=2"])).preset.backbone
    other = open_run(parser("").parse_args([*flags, "--set", "tiny_clip.text_steps=10"])).preset.backbone
    assert same == shipped and other != shipped and str(tmp_path) in other
