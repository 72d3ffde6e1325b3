"""Gradient descent on a task: the inner loop, few-shot adaptation, inferred descriptors."""
