"""Models, samplers, data and inference of HyperCLIP and HyperLDM (Nava et al., TMLR 2023).

`pip install .` installs this folder as `question_to_adapter`; in a checkout it is `core`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .generator import Adapter, AdapterGenerator

__version__ = "0.2.0"
__all__ = ["Adapter", "AdapterGenerator", "__version__"]


def __getattr__(name: str) -> Any:
    """The two classes are imported when they are first asked for: PyTorch takes seconds to load."""
    if name in ("Adapter", "AdapterGenerator"):
        from . import generator

        return getattr(generator, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
