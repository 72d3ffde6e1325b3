import random
from collections import Counter

import numpy as np
import pytest

from core.data.emoji.captions import loose_caption
from core.data.emoji.dataset import EmojiConfig, EmojiVQA, draw_scenes_for_question
from core.data.emoji.labels import scene_labels
from core.data.emoji.questions import FAMILIES, NEW_FAMILIES, QUESTIONS, phrasings
from core.data.emoji.scene import IMAGE_SIZE, draw_array
from core.data.emoji.world import CATEGORIES, GLYPHS, OBJECTS, PLACES, World, WorldConfig


@pytest.fixture(scope="module")
def data():
    return EmojiVQA()


def test_the_world_is_large_enough():
    assert len(OBJECTS) >= 150 and len(CATEGORIES) >= 14
    assert len(set(GLYPHS.values())) == len(OBJECTS) == len(set(OBJECTS))
    assert 40 <= len(FAMILIES) <= 80


def test_shape_of_the_benchmark(data):
    train = [task for task in data.tasks if task.split != "test"]
    test = [task for task in data.tasks if task.split == "test"]
    assert (len(train), len(test), sum(t.split == "val" for t in train)) == (870, 373, 87)
    mean = lambda values: sum(values) / len(values)
    assert (
        50 < mean([len(t.support[0]) for t in data.tasks]) < 66
        and 22 < mean([len(t.query[0]) for t in data.tasks]) < 30
    )
    assert all(2 <= len(t.answers) <= 20 for t in data.tasks)
    assert not {t.question for t in train} & {t.question for t in test}
    assert {t.family for t in test if t.new_family} == NEW_FAMILIES and not {t.family for t in train} & NEW_FAMILIES
    images = [i for t in data.tasks for i in t.examples("all")[0]]
    assert len(images) == len(set(images)) == data.num_images
    assert all(Counter(t.examples("all")[1])[label] > 1 for t in data.tasks for label in range(len(t.answers)))


def test_phrasings_ask_the_same(data):
    same = {"Where is the candle?", "In which corner is the candle?", "Which corner holds the candle?"}
    assert set(phrasings("Where is the candle?")) == same
    assert all(len(phrasings(text)) > 1 and text in phrasings(text) for text in QUESTIONS)
    with pytest.raises(KeyError, match="What is love"):
        phrasings("What is love?")
    trained = {task.question for task in data.tasks if task.split == "train"}  # 783, without those of validation
    again = [t for t in data.tasks if t.split == "test" and not trained.isdisjoint(phrasings(t.question))]
    assert len(again) == 157 and not any(task.new_family for task in again)  # as README and eval/README say
    chosen = {task.question for task in data.tasks if task.split == "val"}
    judged = [t for t in data.tasks if t.split == "test" and not chosen.isdisjoint(phrasings(t.question))]
    assert len(judged) == 30 and len([task for task in judged if task not in again]) == 12


def test_every_label_is_the_answer_of_its_scene(data):
    """Worked out again from the scene, for families whose answer is easy to state another way."""
    checked = Counter()
    for task in data.tasks[::7]:
        question = QUESTIONS[task.question]
        for image, label in list(zip(*task.query, strict=True))[:4]:
            scene, answer = data.scene(image), task.answers[label]
            if question.family == "background of object":
                assert answer == scene.background and question.argument[0] in {t.name for t in scene.things}
            elif question.family == "name by category":
                assert [t.name for t in scene.things if t.category == question.argument[0]] == [answer]
            elif question.family == "badge colour of place":
                assert [t.colour for t in scene.things if t.place == question.argument[0]] == [answer]
            elif question.family == "kind of neighbour":
                anchor = next(t for t in scene.things if t.name == question.argument[1])
                other = next(t for t in scene.things if t.category == answer)
                assert anchor.place != other.place
            else:
                continue
            checked[question.family] += 1
    assert len(checked) == 4


def test_scenes_are_pure_functions(data):
    again = EmojiVQA()
    assert again.tasks[5] == data.tasks[5] and again.scene(1234) == data.scene(1234)
    pixels = data.load_arrays([1234])
    assert pixels.shape == (1, IMAGE_SIZE, IMAGE_SIZE, 3) and np.array_equal(pixels, again.load_arrays([1234]))
    assert (
        EmojiVQA(EmojiConfig(train_tasks=20, val_tasks=4, test_known_tasks=5, test_new_tasks=2, seed=1)).tasks[0]
        != data.tasks[0]
    )


def test_habits_are_followed_a_third_to_a_half_of_the_time():
    world = World(WorldConfig())
    hits = [
        world.compose(random.Random(i), "dog").background
        in (world.habits["dog"].background, world.habits["animal"].background)
        for i in range(2000)
    ]
    assert 0.4 < sum(hits) / len(hits) < 0.65  # habit, or by chance among the other colours


def test_labels_describe_the_scene():
    world = World(WorldConfig())
    for seed in range(50):
        scene = world.compose(random.Random(seed))
        table = scene_labels(scene)
        assert table[4, 2] == len(scene.things)
        for thing in scene.things:
            row = table[PLACES.index(thing.place)]
            assert OBJECTS[row[0]] == thing.name and (row[1] == -1) == (thing.colour is None)
        assert (table[:4, 0] >= 0).sum() == len(scene.things)
        assert draw_array(scene).shape == (IMAGE_SIZE, IMAGE_SIZE, 3)


def test_captions_are_loose_bags():
    scene = World(WorldConfig()).compose(random.Random(0))
    captions = {loose_caption(scene, random.Random(i)) for i in range(50)}
    assert len(captions) > 40 and not any("behind the" in caption for caption in captions if "of" not in caption)


def test_scenes_for_a_question():
    known = draw_scenes_for_question("What colour is the badge behind the dog?", 4, seed=1)
    assert len(known) == 4 and all(truth is not None for _, truth in known)
    free = draw_scenes_for_question("Is there any kind of fruit?", 2)
    assert all(truth is None for _, truth in free)
    for bad in (("", 3), ("q?", 0), ("q?", 65)):
        with pytest.raises(ValueError):
            draw_scenes_for_question(*bad)
