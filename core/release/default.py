"""Where the shipped release lies, whatever the current directory is."""

from __future__ import annotations

from pathlib import Path

FOLDER = Path("weights", "emoji")  # in a checkout and in the installed package


def default_release() -> Path:
    """The shipped release: inside the package where it is installed, beside it in a checkout.

    The directory may be missing, as in a Space that serves another release.
    """
    package = Path(__file__).resolve().parents[1]
    installed = package / FOLDER
    return installed if installed.is_dir() else package.parent / FOLDER
