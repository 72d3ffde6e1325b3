"""Questions in other words: kinds of phrasing that a TOML file names, by rules that anyone can give lists to."""

from .kinds import Phrasings

__all__ = ["Phrasings"]
