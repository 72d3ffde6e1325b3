import pytest
import torch

from core.data.tasks import Task, TaskSet, split_support_query, subsample
from tests.conftest import random_batch


def test_support_and_query_are_disjoint_and_cover():
    batch = random_batch(T=6, N=20)
    tag = torch.arange(20).expand(6, 20)  # labels as tags, to follow examples through trimming
    tagged = type(batch)(batch.images, tag, batch.example_mask, batch.answers, batch.answer_mask, batch.question)
    support, query = split_support_query(tagged, rng=torch.Generator().manual_seed(1))
    for i in range(6):
        a = set(support.labels[i][support.example_mask[i]].tolist())
        b = set(query.labels[i][query.example_mask[i]].tolist())
        assert not a & b
        assert a | b == set(tag[i][batch.example_mask[i]].tolist())
        assert abs(len(a) - 2 / 3 * len(a | b)) <= 0.5


def test_split_is_a_function_of_the_random_state():
    batch = random_batch()
    one, two, three = (split_support_query(batch, rng=torch.Generator().manual_seed(s))[0].images for s in (1, 1, 2))
    assert torch.equal(one, two)
    assert one.shape != three.shape or not torch.equal(one, three)


def test_subsample_keeps_at_most_n():
    batch = random_batch(N=30)
    small = subsample(batch, 5, torch.Generator().manual_seed(0))
    assert small.example_mask.sum(1).tolist() == [5] * 4
    assert (small.images.norm(dim=-1) > 0.9).all()


def test_batch_pads_and_masks():
    tasks = (
        Task("q1?", ("a", "b"), ((0, 1), (0, 1)), ((2,), (1,)), "train"),
        Task("q2?", ("a", "c", "b"), ((3,), (2,)), ((4,), (1,)), "test"),
    )
    table = torch.eye(5)
    data = TaskSet(tasks, table, torch.eye(5)[:3], torch.eye(5)[:2], ((0, 1), (0, 2, 1)))
    batch = data.batch()
    assert batch.images.shape == (2, 3, 5) and batch.answers.shape == (2, 3, 5)
    assert batch.example_mask.tolist() == [[True, True, True], [True, True, False]]
    assert batch.labels[1].tolist() == [2, 1, 0]
    assert torch.equal(batch.images[1, 0], table[3]) and torch.equal(batch.answers[1, 2], torch.eye(5)[1])
    assert [task.question for task in data.split("test").tasks] == ["q2?"]


@pytest.mark.parametrize(
    "arguments",
    [
        dict(answers=("a",)),
        dict(support=((0, 1), (0,))),
        dict(query=((1,), (7,))),
    ],
)
def test_impossible_tasks_are_refused(arguments):
    good = dict(question="q?", answers=("a", "b"), support=((0,), (0,)), query=((1,), (1,)), split="train")
    with pytest.raises(ValueError, match="q\\?"):
        Task(**{**good, **arguments})


def test_a_table_of_rows_gives_the_same_batches_as_padding_everything():
    """Long and short tasks, an answer shared: what is drawn from the table is what is drawn from batches."""
    tasks = (
        Task("q1?", ("a", "b"), (tuple(range(40)), (0, 1) * 20), ((40,), (1,)), "train"),
        Task("q2?", ("a", "c", "b"), ((3, 5), (2, 0)), ((4,), (1,)), "train"),
        Task("q3?", tuple(f"x{i}" for i in range(70)), ((7, 8, 9), (0, 69, 5)), ((10,), (2,)), "train"),
    )
    g = torch.Generator().manual_seed(0)
    unit = lambda *shape: torch.nn.functional.normalize(torch.randn(*shape, generator=g), dim=-1)
    data = TaskSet(tasks, unit(41, 8).half(), unit(73, 8), unit(3, 8), ((0, 1), (0, 2, 1), tuple(range(3, 73))))
    batch, table = data.batch(), data.table()
    rows = torch.tensor([1, 0])
    draw = lambda source: subsample(source[rows], 4, torch.Generator().manual_seed(1))
    fractions = lambda source: split_support_query(source[rows], rng=torch.Generator().manual_seed(1))
    for one, two in ((draw(batch), draw(table)), *zip(fractions(batch), fractions(table), strict=True)):
        C = two.answers.shape[1]
        assert C == 32 and not one.answer_mask[:, C:].any()  # 70 answers pad nobody else
        assert torch.equal(one.images * one.example_mask[..., None], two.images)  # what is not used is padding
        for name in ("labels", "example_mask", "question"):
            assert torch.equal(getattr(one, name), getattr(two, name))
        assert torch.equal(one.answers[:, :C], two.answers)
    assert table.trimmed().answers.shape == (3, 70, 8)
