"""What reading of a question it takes: kernels whose answers are known."""

import pytest
import torch
from torch.nn.functional import normalize

from eval.datasets import shapes_readings
from eval.harness.shapes import questions


@pytest.fixture(scope="module")
def planted():
    """36 meanings in two forms, of opposite answers, whose e differ along one direction; and which form each is."""
    rng = torch.Generator().manual_seed(0)
    content = torch.randn(36, 5, generator=rng).repeat_interleave(2, 0)
    sign = torch.tensor([1.0, -1.0]).repeat(36)
    e = torch.cat([content, 0.3 * sign[:, None], 0.05 * torch.randn(72, 4, generator=rng)], 1)
    x = torch.randn(72, 40, 12, generator=rng)
    seen = content @ torch.randn(5, 12, generator=rng)  # what the positive form asks for is linear in the content
    y = ((x @ seen[:, :, None])[..., 0] * sign[:, None]).sign()
    return e, x / 12**0.5, y, sign


def test_a_kernel_that_overlooks_the_denial_is_upside_down(planted):
    e, x, y, sign = planted
    smooth = shapes_readings._linear(e - e.mean(0))
    overlooked = shapes_readings.held_out(smooth, x, y, ridge=1.0)
    told = shapes_readings.held_out(smooth * torch.outer(sign, sign), x, y, ridge=1.0)
    assert overlooked.mean() < 0.45 and told.mean() > 0.8


def test_a_planted_sign_is_found_without_being_told(planted):
    e, x, y, sign = planted
    near, away = shapes_readings.folds(72)[0]
    learned = shapes_readings.learned_sign(e, x, y, near)
    agreed = float((learned[away] == sign[away]).float().mean())
    assert max(agreed, 1 - agreed) > 0.9


def test_the_denial_is_taken_out_of_the_words():
    asked = questions(0)
    every = shapes_readings.kernels(asked, normalize(torch.randn(len(asked), 8), dim=-1))
    place = {question.text: i for i, question in enumerate(asked)}
    for i, question in enumerate(asked):
        partner = place[question.partner]
        told = every[shapes_readings.TOLD]
        assert told[i, partner] == pytest.approx(-float(told[i, i]), abs=1e-6)  # the same words, the other sign
        assert every["words"][i, partner] > 0
