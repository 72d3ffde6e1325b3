"""Datasets of question-conditioned image classification, their tasks and their features."""
