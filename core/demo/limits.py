"""What a visitor may send, and what the server keeps: every limit of the page, quoted by its messages and by About.

Candidate answers are limited wherever they are read, by `core.classifier`. Nothing heavy is imported here.
"""

from __future__ import annotations

# One request
MAX_QUESTION = 300  # characters; the encoder has a limit of its own, in tokens
MIN_QUESTIONS, MAX_QUESTIONS = 2, 12  # to compare
MAX_PICTURES = 64
MAX_SEED = 2**31 - 1
MAX_PIXELS = 25_000_000  # of a picture: a few kilobytes can hold one that fills the memory once it is decoded
MAX_TOTAL_PIXELS = 400_000_000  # of all pictures of a request
MAX_FILE = 10 * 10**6  # bytes of an uploaded file
MAX_UPLOAD = 200 * 10**6  # bytes of one upload of several files
MAX_FIELDS = 4000  # bytes of an upload's parts that are no files: Gradio keeps these in memory
MAX_BODY = 10**6  # bytes of any other request

# A visitor, by the address that requests come from, within `KEPT`
VISITOR_FILES, VISITOR_BYTES = 2048, 10**9  # a class may share one address

# The server
WORKERS, QUEUE = 2, 64  # requests that are worked on at a time, and that may wait
KEPT, SWEPT = 3600, 300  # seconds for which files are kept, and between two looks for older ones
SERVER_BYTES = 4 * 10**9  # of all uploads within `KEPT`
ADAPTERS = 512  # generated files, the latest
VISITS = 128  # whose latest answers and score are in memory; more than `QUEUE`: none is forgotten while it waits
SCORED = 1024  # scenes of a visit and a method, the latest
UNREAD = 256  # messages in memory that nobody has fetched


def mega(count: int) -> str:
    """A count in millions, as people write it: "10", "2.5"."""
    return f"{count / 10**6:.5g}"
