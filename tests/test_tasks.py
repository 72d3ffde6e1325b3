import pytest
import torch

from core.tasks import Task, TaskSet, split_support_query, subsample
from tests.conftest import random_batch


def test_support_and_query_are_disjoint_and_cover():
    batch = random_batch(T=6, N=20)
    tag = torch.arange(20).expand(6, 20)  # labels as tags, to follow examples through trimming
    tagged = type(batch)(batch.images, tag, batch.example_mask, batch.answers, batch.answer_mask, batch.question)
    support, query = split_support_query(tagged, generator=torch.Generator().manual_seed(1))
    for i in range(6):
        a = set(support.labels[i][support.example_mask[i]].tolist())
        b = set(query.labels[i][query.example_mask[i]].tolist())
        assert not a & b
        assert a | b == set(tag[i][batch.example_mask[i]].tolist())
        assert abs(len(a) - 2 / 3 * len(a | b)) <= 0.5


def test_split_is_a_function_of_the_generator():
    batch = random_batch()
    one, two, three = (
        split_support_query(batch, generator=torch.Generator().manual_seed(s))[0].images for s in (1, 1, 2)
    )
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
