"""Hostile and clumsy inputs by the thousand: every one must give a result or a clean message.

    python -m tests.fuzz                             all kinds, each in a process of its own: about half an hour
    python -m tests.fuzz texts --count 100 --seed 3  some, to look closer

Prints a line for each kind: how many cases gave a result, were refused with a message, or went wrong; memory after the
first 50 cases and at the end, which may be 10% more; and then what went wrong. Exit status 1 if anything did, a process
died, or a file outside of the temporary folder was opened that is no part of the program.
"""

from __future__ import annotations

import argparse
import faulthandler
import subprocess
import sys

from core.console import Parser

from .run import HEADER, KINDS, ROOT, fuzz

SHOWN = 5  # cases that went wrong of each kind


def main(argv: list[str] | None = None) -> int:
    parser = Parser(
        prog="python -m tests.fuzz", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("kinds", nargs="*", metavar="KIND", help=f"of {', '.join(KINDS)} (default: all)")
    parser.add_argument("--count", type=int, help="cases of each kind (default: as many as the project promises)")
    parser.add_argument("--seed", type=int, default=0, help="of the cases (default: 0)")
    args = parser.parse_args(argv)
    if unknown := sorted(set(args.kinds) - KINDS.keys()):
        parser.error(f"kind {unknown[0]!r}; allowed: {', '.join(KINDS)}")
    if args.count is not None and args.count < 1:
        parser.error(f"--count {args.count}; allowed: 1 or more")
    if len(args.kinds) == 1:
        faulthandler.enable()
        print(HEADER, flush=True)
        found = fuzz(args.kinds[0], args.count or KINDS[args.kinds[0]], args.seed)
        print(found.line())
        for text in found.wrong[:SHOWN]:
            print(f"\n{text}")
        return int(bool(found.wrong) or found.grew())
    codes = {}
    for kind in args.kinds or KINDS:
        flags = [] if args.count is None else ["--count", str(args.count)]
        command = [sys.executable, "-m", "tests.fuzz", kind, "--seed", str(args.seed), *flags]
        codes[kind] = subprocess.run(command, cwd=ROOT).returncode
    for kind, code in codes.items():
        print(f"{kind}: " + ("fine" if code == 0 else "NOT FINE" if code == 1 else f"DIED with exit status {code}"))
    return int(any(codes.values()))


if __name__ == "__main__":
    sys.exit(main())
