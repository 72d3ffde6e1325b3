"""Everything that has weights: base networks, hypernetworks, generators of weights, the denoiser."""
