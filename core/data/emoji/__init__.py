"""Emoji-VQA: its world, its questions, its scenes and its dataset."""
