"""The demo: ask a question, get an adapter for it, see what it does. Flags, and what is served in which order.

Gradio and PyTorch take seconds to import: flags are read before that, and models after the page is up.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from core.console import Parser
from core.release.default import shipped_releases

if TYPE_CHECKING:
    from gradio import Blocks

    from core.generator import AdapterGenerator

RESULTS = Path(__file__).parent / "eval" / "results"
WEIGHTS = [where.strip() for where in os.environ.get("HF_WEIGHTS", "").split(",") if where.strip()]
WEIGHTS = WEIGHTS or [str(directory) for directory in shipped_releases()]

_EPILOG = """Every flag has an environment variable for a default, as a Space sets them: HF_WEIGHTS, GRADIO_SERVER_NAME,
GRADIO_SERVER_PORT, MCP. Gradio reads more of its own (GRADIO_SHARE, GRADIO_ROOT_PATH ...).

What it needs: about 1.7 GB of memory with both shipped worlds, more while many ask at once; no GPU, though one is used
where there is one, and no network for a local release. It takes about 6 seconds to the page on
two CPU cores, and as long again until all models are read. A release from the Hub is downloaded once
(about 80 MB for the emoji preset)."""


def parser() -> argparse.ArgumentParser:
    """The flags, with what the environment says for defaults."""
    result = Parser(
        prog="python app.py",
        description="Serve the demo: ask a question, get an adapter for it, see what it does.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    result.add_argument(
        "--weights",
        action="append",
        metavar="WHERE",
        help="release directory, or Hub repository USER/REPO or USER/REPO@REVISION; given several times, the page "
        "has a world of each (default: HF_WEIGHTS, separated by commas, else all shipped releases)",
    )
    # Without these two Gradio itself reads its variables, and looks for a free port from the variable's onwards.
    result.add_argument("--host", help="address to listen at (default: GRADIO_SERVER_NAME, else 127.0.0.1)")
    result.add_argument(
        "--port", type=int, help="this port or none (default: the first free one from GRADIO_SERVER_PORT, else 7860)"
    )
    result.add_argument(
        "--mcp",
        action="store_true",
        default=os.environ.get("MCP", "0") not in ("", "0"),
        help="also offer the endpoints as tools to MCP clients; needs the extra gradio[mcp] (default: MCP=1)",
    )
    return result


def build_demo(*generators: AdapterGenerator) -> Blocks:
    """The page around loaded releases, a world for each, to be launched with `core.demo.layout.page.LAUNCH`."""
    from core.demo.layout import page
    from core.demo.studio import open_worlds

    return page.build_demo(open_worlds(generators), RESULTS)


def main(argv: Sequence[str] | None = None) -> None:
    arguments = parser()
    args = arguments.parse_args(argv)
    if args.port is not None and not 0 < args.port < 2**16:
        arguments.error(f"--port {args.port}; allowed: 1 to {2**16 - 1}")
    if args.mcp and importlib.util.find_spec("mcp") is None:
        arguments.error("--mcp (or MCP=1) needs Gradio's extra: pip install 'gradio[mcp]'")
    from core.demo.layout import page  # before PyTorch, where the Hub lends a GPU

    # isort: split
    import torch

    from core.demo.limits import QUEUE, WORKERS
    from core.demo.studio import open_worlds
    from core.generator import AdapterGenerator

    torch.set_num_threads(max(1, (os.cpu_count() or 1) // WORKERS))  # small models: more threads wait for each other
    device = "cuda" if torch.cuda.is_available() else "cpu"
    weights = args.weights or WEIGHTS
    about_weights = f"--weights (or HF_WEIGHTS) {', '.join(weights)}"
    try:
        studios = open_worlds([AdapterGenerator.from_pretrained(where, device=device) for where in weights])
        demo = page.build_demo(studios, RESULTS).queue(max_size=QUEUE)
    except (OSError, ValueError) as error:
        arguments.error(f"{about_weights}: {error}")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: temporary files go
    try:
        demo.launch(
            prevent_thread_lock=True,
            server_name=args.host,
            server_port=args.port,
            mcp_server=args.mcp,
            **page.LAUNCH,
        )
    except (OSError, ValueError) as error:
        arguments.error(f"--host, --port: {error} (variables GRADIO_... count, too)")
    try:
        for studio in studios:  # while visitors read the page
            studio.warm()
    except KeyboardInterrupt:
        demo.close()
        return
    except (OSError, ValueError) as error:
        arguments.error(f"{about_weights}: {error}")
    demo.block_thread()


if __name__ == "__main__":
    main()
