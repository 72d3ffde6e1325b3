"""Embeddings that are kept: bounded, by content, the same as fresh ones."""

import time
from concurrent.futures import ThreadPoolExecutor

import torch
from PIL import Image

from core.cache import EmbeddingCache, content_of, once


class Counting:
    """Embeds a text as its length, and says which were asked for."""

    def __init__(self):
        self.asked = []

    def __call__(self, texts):
        self.asked.append(list(texts))
        return torch.tensor([[float(len(text))] for text in texts]).view(-1, 1)


def test_only_what_is_new_is_embedded_and_in_one_batch():
    cache, embed = EmbeddingCache(10), Counting()
    assert cache(["a", "bb", "a"], embed).tolist() == [[1], [2], [1]]
    assert cache(["ccc", "bb", "dddd"], embed).tolist() == [[3], [2], [4]]
    assert cache(["a", "dddd"], embed).tolist() == [[1], [4]]
    assert embed.asked == [["a", "bb"], ["ccc", "dddd"]]
    assert cache([], embed).shape == (0, 1)


def test_what_was_used_longest_ago_goes_first_and_no_batch_is_too_large():
    cache, embed = EmbeddingCache(2), Counting()
    assert cache(["a", "bb", "ccc"], embed).tolist() == [[1], [2], [3]]  # "a" is gone
    cache(["bb"], embed)
    cache(["dddd"], embed)  # "ccc" is gone
    cache(["bb"], embed)
    assert embed.asked == [["a", "bb", "ccc"], ["dddd"]]
    cache(["ccc"], embed)
    assert embed.asked[-1] == ["ccc"]


def test_a_caller_may_change_what_it_gets():
    cache, embed = EmbeddingCache(2), Counting()
    cache(["a"], embed).zero_()
    assert cache(["a"], embed).tolist() == [[1]]


def test_pictures_are_told_apart_by_their_pixels():
    red, blue = Image.new("RGB", (4, 6), "red"), Image.new("RGB", (4, 6), "blue")
    assert content_of(red) == content_of(red.copy()) != content_of(blue)
    assert content_of(Image.new("RGB", (6, 4), "red")) != content_of(red)
    assert content_of(Image.new("L", (4, 6))) != content_of(Image.new("P", (4, 6)))


def test_what_is_kept_takes_no_more_room_than_its_rows():
    """A row that is a view keeps its whole batch."""
    cache = EmbeddingCache(3)
    for i in range(8):
        cache(["often", *(f"{i}/{k}" for k in range(20))], lambda texts: torch.zeros(len(texts), 4))
    kept = {row.untyped_storage().data_ptr(): row.untyped_storage().nbytes() for row in cache._rows.values()}
    assert sum(kept.values()) == 3 * 4 * 4


def test_threads_compute_a_property_once():
    class Slow:
        counted = 0

        @once
        def value(self):
            """Its text."""
            self.counted += 1
            time.sleep(0.05)
            return object()

    slow = Slow()
    with ThreadPoolExecutor(8) as pool:
        found = set(pool.map(lambda _: slow.value, range(8)))
    assert len(found) == 1 and slow.counted == 1
    assert Slow.value.__doc__ == "Its text." and Slow().value not in found
