"""Texts as people write and save them: what reads as one text, in which encoding a file is, which cells a table has."""

from __future__ import annotations

import csv
import io
import json
import re
import reprlib
import unicodedata
from collections.abc import Sequence
from pathlib import Path

SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs"}
_MARKED = {b"\xef\xbb\xbf": "utf-8-sig", b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}  # by the bytes that begin a file
_WORKBOOKS = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0")  # how files of spreadsheets themselves begin
_ADVICE = 'save it as "CSV UTF-8"'
_DELIMITED = (".csv", ".tsv", ".txt")  # how files of delimited text are called
_PART = "[,;\n，、；]"  # parts answers in a text
_ANSWER = re.compile(rf'\s*(?:"((?:[^"]|"")*)"\s*(?={_PART}|\Z)|((?:(?!{_PART}).)*))({_PART}|\Z)', re.DOTALL)
_QUOTED = re.compile(rf'{_PART}|\A\s*"')  # an answer that has to stand in quotes
_SHORT = reprlib.Repr()  # of what a message quotes
_SHORT.maxstring = _SHORT.maxother = 80


def folded(text: str) -> str:
    """What texts have in common that differ in case, Unicode form, spaces or signs that are not seen: to whoever reads
    them they are one, and text encoders embed them alike."""
    if text.isascii():  # nearly all texts, in a tenth of the time
        return re.sub(r" (?=[?!.,:;])", "", " ".join(text.casefold().split()))
    seen = "".join(c for c in unicodedata.normalize("NFKC", text) if unicodedata.category(c) != "Cf")
    spaced = " ".join(unicodedata.normalize("NFKC", seen.casefold()).split())
    return re.sub(r" (?=[?!.,:;])", "", spaced)


def split_answers(text: str) -> list[str]:
    """The answers in a text that parts them by commas, semicolons or lines, also Chinese and Japanese ones; what stands
    in double quotes is one answer, in which two quotes are one."""
    found, at = [], 0
    while True:
        answer = _ANSWER.match(text, at)
        quoted, plain, end = answer.groups()
        found.append(plain if quoted is None else quoted.replace('""', '"'))
        if not end:
            return found
        at = answer.end()


def join_answers(answers: Sequence[str]) -> str:
    """A text that `split_answers` takes apart again."""
    quoted = lambda answer: '"{}"'.format(answer.replace('"', '""'))
    return ", ".join(quoted(answer) if _QUOTED.search(answer) else answer for answer in answers)


def decoded(data: bytes) -> tuple[str, str]:
    """The text in a file's bytes, and the name of its encoding: that which its first bytes say, else UTF-8, UTF-16
    where every other byte is zero, or Windows' Western code page.

    Raises:
        ValueError: a workbook, or no text in any of these; the message says how to save it.
    """
    if data.startswith(_WORKBOOKS):
        raise ValueError(f"a workbook, not a table in text; {_ADVICE} in the spreadsheet")
    encodings = next(((name,) for mark, name in _MARKED.items() if data.startswith(mark)), ("utf-8", "cp1252"))
    if len(encodings) > 1 and b"\0" in data:  # UTF-16 of Western letters has them in every other place
        encodings = ("utf-16-be" if data[:1] == b"\0" else "utf-16-le",)
    for encoding in encodings:
        try:
            text = data.decode(encoding)
        except UnicodeDecodeError:
            continue
        if "\0" not in text:
            return text, encoding
    raise ValueError(f"in none of the encodings UTF-8, UTF-16 and Windows-1252; {_ADVICE}")


Records = list[tuple[str, dict[str, str]]]  # where each is, as "line 3", and its texts by column


def read_records(path: Path | str, required: tuple[str, ...], optional: tuple[str, ...] = ()) -> tuple[Records, str]:
    """The records of a table in a file, CSV or JSON (a list of objects), and the file's encoding.

    Spreadsheets write commas, semicolons or tabs, in several encodings, and leave empty columns and rows where
    something was once; names of columns are taken in any case.

    Raises:
        ValueError: no such file, another kind of file, no rows, missing, unknown or surplus columns, cells without a
            column; the message names the file.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"table {str(path)!r}: no such file")
    if path.suffix.lower() not in (*_DELIMITED, ".json"):
        kinds = ", ".join(_DELIMITED)
        raise ValueError(f"table {str(path)!r}; allowed: {kinds} or .json; in a spreadsheet, {_ADVICE}")
    try:
        text, encoding = decoded(path.read_bytes())
        columns, records = (_json_records if path.suffix.lower() == ".json" else _records)(text, required)
        unknown = [name for name in columns if name not in required + optional]
        missing = [name for name in required if name not in columns]
        if unknown or missing:
            what = f"unknown column {unknown[0]!r}" if unknown else f"column {missing[0]!r} is missing"
            raise ValueError(f"{what}; required: {', '.join(required)}; optional: {', '.join(optional)}")
        if len(set(columns)) != len(columns) or not records:
            raise ValueError("a column occurs twice" if records else "no rows")
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    return records, encoding


def _records(text: str, required: tuple[str, ...]) -> tuple[list[str], Records]:
    """Columns and records of delimited text, less columns without a name and without cells."""
    _, rows = read_cells(text, required)
    header = [folded(name) for name in rows[0][1]] if rows else []
    records = []
    for line, cells in rows[1:]:
        nameless = [i for i, cell in enumerate(cells) if cell and (i >= len(header) or not header[i])]
        lacking = [name for name in header[len(cells) :] if name in required]
        if lacking or (nameless and nameless[-1] >= len(header)):
            raise ValueError(f"line {line} has {len(cells)} cells, the header {len(header)}")
        if nameless:
            raise ValueError(
                f"line {line}: {_SHORT.repr(cells[nameless[0]])} is in column {nameless[0] + 1}, without a name"
            )
        padded = [*cells, *[""] * len(header)]
        records.append((f"line {line}", {name: cell for name, cell in zip(header, padded, strict=False) if name}))
    return [name for name in header if name], records


def _json_records(text: str, required: tuple[str, ...]) -> tuple[list[str], Records]:
    """Columns and records of a JSON list of objects; the `required` columns where it is empty."""
    try:
        entries = json.loads(text)
    except RecursionError:
        raise ValueError("lists within lists, too deep to be a table") from None
    if not isinstance(entries, list):
        raise ValueError(f"expected a list of objects, got {type(entries).__name__}")
    records = []
    for i, entry in enumerate(entries):
        if not isinstance(entry, dict) or not all(isinstance(value, str) for value in entry.values()):
            raise ValueError(f"entry {i + 1}: expected an object of texts, got {_SHORT.repr(entry)}")
        if entry.keys() != entries[0].keys():
            raise ValueError(
                f"entry {i + 1} has the keys {_SHORT.repr(list(entry))}, the first {_SHORT.repr(list(entries[0]))}"
            )
        if any(value.strip() for value in entry.values()):
            records.append((f"entry {i + 1}", {folded(key): value.strip() for key, value in entry.items()}))
    return [folded(key) for key in entries[0]] if entries else list(required), records


def read_cells(text: str, wanted: tuple[str, ...]) -> tuple[str, list[tuple[int, list[str]]]]:
    """The separator of a table in text, and its rows of stripped cells with their line numbers, less empty rows.

    The separator is the one of `SEPARATORS` that finds most of the column names `wanted` in the header, or the one that
    Excel's own first line, such as "sep=;", names.

    Raises:
        ValueError: quotes that do not end, or cells beyond what the csv module takes; the message names the line.
    """
    found = re.match(r"\s*\"?sep=([,;\t])\"?\s*?(\r\n|\r|\n|$)", text, re.IGNORECASE)
    skipped = found[0].count("\n") or found[0].count("\r") if found else 0
    text = text[found.end() :] if found else text
    header = next((line for line in text.splitlines() if line.strip(" ,;\t")), "")
    separator = found[1] if found else max(SEPARATORS, key=lambda separator: _fit(header.split(separator), wanted))
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    rows = []
    try:
        for cells in reader:
            cells = [cell.strip() for cell in cells]
            if any(cells):
                rows.append((reader.line_num + skipped, cells))
    except csv.Error as error:
        raise ValueError(f"line {reader.line_num + skipped}: {error}") from None
    return separator, rows


def _fit(cells: list[str], wanted: tuple[str, ...]) -> tuple[int, int]:
    """How well a header is parted: wanted names among its cells, then cells."""
    return len({folded(cell.strip('" ')) for cell in cells}.intersection(wanted)), len(cells)
