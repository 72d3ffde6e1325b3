"""Settings that training cannot use end a run before it begins."""

import pytest

from core.config import override
from train import run_all
from train.presets import get_preset


@pytest.mark.parametrize(
    "setting, message",
    [
        ("hyperldm.hidden=[]", "hidden []; allowed: one width or several"),
        ("hyperldm.hidden=[64, -5]", "hidden [64, -5]; allowed: one width or several"),
        ("hyperldm.squeeze=0", "squeeze 0; allowed: 1 to the least width, 64"),
        ("hyperldm.squeeze=65", "squeeze 65; allowed: 1 to the least width, 64"),
        ("hyperldm.time_dim=0", "time_dim 0 must be even (sine and cosine), 2 or more"),
        ("hyperldm.num_timesteps=0", "hyperldm.num_timesteps 0; allowed: 1 or more"),
        ("diffusion.drop_condition=1", "diffusion.drop_condition 1.0; allowed: 0 to below 1"),
        ("hvae.hidden=[0]", "hvae.hidden [0]; allowed: 1 or more"),
        ("cond_hnet.cond_multitask.hidden=0", "cond_hnet.cond_multitask.hidden 0; allowed: 1 or more"),
        ("diffusion.lr=-1", "diffusion.lr -1.0; allowed: above 0 and finite"),
        ("diffusion.lr=NaN", "diffusion.lr nan; allowed: above 0 and finite"),
        ("diffusion.weight_decay=-0.1", "diffusion.weight_decay -0.1; allowed: 0 or more"),
        ("multitask.cond_multitask.tasks=0", "multitask.cond_multitask.tasks 0; allowed: 1 or more"),
        ("adaptations.hvae.support_fraction=1", "adaptations.hvae.support_fraction 1.0; allowed: between 0 and 1"),
        ("few_shot_lrs=[]", "few_shot_lrs is empty; allowed: one number or several, above 0 and finite"),
        ("few_shot_lrs=[0.1, 0]", "few_shot_lrs [0.1, 0.0]; allowed: above 0 and finite"),
        ("networks.clip_adapter.init_std=-1", "networks.clip_adapter.init_std -1.0; allowed: 0 or more"),
        ("guidance.hvae.lam=-1", "guidance.hvae.lam -1.0; allowed: 0 or more"),
        ("other_words=2", "other_words 2.0; allowed: 0 to 1"),
        ("logit_scale=0", "logit_scale 0.0; allowed: above 0 and finite"),
    ],
)
def test_a_number_that_training_cannot_use_is_named_before_it_begins(setting, message, tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        run_all.main(["--preset", "tiny", "--work", str(tmp_path), "--device", "cpu", "--set", setting])
    said = capsys.readouterr().err
    assert ended.value.code == 2 and message in said and not list(tmp_path.iterdir())


@pytest.mark.parametrize("setting", ["diffusion.weight_decay=0", "hyperldm.cond_noise=0", "hyperldm.squeeze=64"])
def test_the_ends_of_what_is_allowed(setting):
    assert override(get_preset("tiny"), [setting]) is not None
