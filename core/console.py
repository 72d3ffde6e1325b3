"""What a program prints: the console may lack characters of questions, answers and file names."""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Sequence
from typing import Any


class Parser(argparse.ArgumentParser):
    """The flags of a program of this project. Once they are read, no character ends the program: what the console
    lacks is printed as an escape (standard error does so anyway). Whoever calls the library keeps their own console."""

    def parse_known_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:
        if isinstance(sys.stdout, io.TextIOWrapper):  # a notebook's is none, and a program without a console has None
            sys.stdout.reconfigure(errors="backslashreplace")
        return super().parse_known_args(args, namespace)
