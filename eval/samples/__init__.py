"""What samples of HyperLDM are good for: one or their average, chosen by examples, questions with two readings."""
