"""Where the Hub lends a GPU, it does so to one function at a time; `spaces` has to be imported before PyTorch."""

try:
    from spaces import GPU as on_gpu
except ImportError:

    def on_gpu(function):
        """Without the optional `spaces` package a function runs where it is."""
        return function


__all__ = ["on_gpu"]
