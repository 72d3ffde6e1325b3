"""Training of the tiny CLIP of Emoji-VQA: its scenes, its readouts, its two towers, and a report on it."""
