"""The ways from a question to weights, by name, and what may be asked of them.

Imports nothing that loads PyTorch, so that the command line shows its help at once.
"""

GENERATORS = ("hvae", "hnet")
# how to get from a question to weights; only the first two search the latent space of a generator
METHODS = (
    "hyperldm",
    "hyperclip",
    "cond_multitask",
    "cond_multitask_film",
    "cond_hnet_maml",
    "uncond_multitask",
    "mnet_maml",
    "mnet_fomaml",
    "hnet_maml",
    "clip",
)
MAX_GAMMA, MAX_SAMPLES, MAX_SEED = 10.0, 64, 2**63 - 1
