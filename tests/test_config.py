import pytest

from core.config import config_hash, from_dict, override, to_dict
from core.data.emoji.dataset import EmojiConfig
from core.networks.hvae import HVAEConfig
from train.presets import PRESET_NAMES, get_preset


def test_round_trip():
    for config in (HVAEConfig(hidden=(8, 4)), EmojiConfig(train_tasks=9, val_tasks=2)):
        assert from_dict(type(config), to_dict(config)) == config


@pytest.mark.parametrize(
    "data, word",
    [
        ({"latnet": 3}, "latnet"),
        ({"latent": "3"}, "latent"),
        ({"latent": True}, "latent"),
        ({"hidden": 5}, "hidden"),
        ({"reconstruction": "sum"}, "authors"),
    ],
)
def test_bad_values_are_named(data, word):
    with pytest.raises(ValueError, match=word):
        from_dict(HVAEConfig, data)


def test_hash_ignores_order_and_sees_values():
    assert config_hash({"a": 1, "b": 2}) == config_hash({"b": 2, "a": 1}) != config_hash({"a": 1, "b": 3})
    assert len({config_hash(get_preset(name)) for name in PRESET_NAMES}) == len(PRESET_NAMES)


def test_unknown_preset_lists_the_known():
    with pytest.raises(ValueError, match="emoji"):
        get_preset("emojis")


def test_override():
    preset = get_preset("emoji")
    changed = override(preset, ["diffusion.steps=7", "multitask.cond_multitask.lr=1", "question_pooling=eos"])
    assert (changed.diffusion.steps, changed.question_pooling) == (7, "eos")
    assert changed.multitask["cond_multitask"].lr == 1.0 and changed.hvae == preset.hvae
    assert override(preset, []) == preset
    changed = override(preset, ["network=lowrank", "networks.lowrank.rank=3"])
    assert changed.network_config.rank == 3 and changed.base_network(dim=10).num_params == 2 * 3 * 10 + 10


def test_settings_that_only_go_together_are_checked_together():
    """Neither 24 training tasks beside 87 validation tasks nor the reverse order is asked for."""
    preset, pair = get_preset("metavqa_sim"), ["dataset.train_tasks=24", "dataset.val_tasks=6"]
    for assignments in (pair, pair[::-1], ["dataset.val_tasks=99", *pair]):  # the last one of a key counts
        dataset = override(preset, assignments).dataset
        assert (dataset.train_tasks, dataset.val_tasks) == (24, 6)
    with pytest.raises(ValueError, match="val_tasks 87 must lie between 0 and train_tasks 24"):
        override(preset, pair[:1])
    whole = override(preset, ["hvae.latent=3", 'hvae={"hidden": [8], "kl_weight": 2}'])
    assert whole.hvae == HVAEConfig(hidden=(8,), kl_weight=2.0, latent=3)


@pytest.mark.parametrize(
    "assignment, word",
    [
        ("diffusion.steps", "KEY=VALUE"),
        ("difusion.steps=1", "groups here: "),
        ("diffusion.step=1", "allowed: infer_descriptors, "),
        ("diffusion.steps=1.5", "expected int"),
        ("question_pooling=last", "'eos', 'mean'"),
        ("name.x=1", "no group 'name'"),
        ("diffusion.described_weight=0", "must be above 0"),
        ("adapter.dim=512", "groups here: "),
        ("networks.clip_adapter.dim=512", "allowed: hidden, bias, init_std"),
        ("networks.nope.hidden=3", "nope"),
        ("networks.lowrank.rank=0", "rank 0; allowed: 1 or more"),
        ("network=nope", "network 'nope'; allowed: clip_adapter, lowrank"),
        ("sampling.sampler=nope", "sampler 'nope'; allowed: ddpm, ddim"),
        ("sampling.steps=0", "sampling.steps 0; allowed: 1 or more"),
        ("sampling.steps=351", "sampling.steps 351; allowed: up to hyperldm.num_timesteps, 350"),
        ("sampling.samples=[1,65]", "allowed: one or more numbers from 1 to 64"),
        ("sampling.samples=[]", "allowed: one or more numbers from 1 to 64"),
        ("sampling.gammas=[0,11]", "allowed: one or more numbers from 0 to 10"),
        ("sampling.gammas=[]", "allowed: one or more numbers from 0 to 10"),
    ],
)
def test_bad_overrides_are_named(assignment, word):
    with pytest.raises(ValueError, match=word):
        override(get_preset("emoji"), [assignment])
