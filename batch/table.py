"""The table of edits: read, bound to a workflow, and checked line by line before anything starts."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass, field
from pathlib import Path

from .binding import CLIP, Column, bind, bound
from .errors import BatchError
from .graph import Graph, key_of
from .own_files import OwnFiles
from .schema import check_column, parse
from .sources import Source, count_frames, find, is_url, read


@dataclass(frozen=True)
class Problem:
    """A fault in the table. `line`: counted as in an editor, 1 is the header; `column`: may be empty."""

    line: int
    column: str
    text: str


@dataclass
class Row:
    """An edit. `values`: the non-empty cells, by column; `clip`, `files`: the source files, and their paths
    in a server's input folder; `workflow`, `settings`: what `graph` is made from; `key`: different for
    everything that can change the result."""

    line: int
    values: dict[str, str]
    clip: Source
    files: dict[str, Source]
    workflow: Graph
    settings: dict[Column, object]
    key: str
    frames: int | None = None

    @property
    def graph(self) -> Graph:
        """The workflow with the row's values; made on demand, because a table may have thousands of rows."""
        return bound(self.workflow, self.settings)


@dataclass
class Table:
    """`columns` by name; `rows`: the valid ones; `problems`: all faults."""

    columns: dict[str, Column] = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    def check(self, info: dict) -> None:
        """Adds the faults of the values. `info`: ComfyUI's description of its nodes."""
        for row in self.rows:
            for column in self.columns.values():
                if column.name in row.values:
                    problems = check_column(row.graph, column, info)
                    self.problems += [Problem(row.line, column.name, text) for text in problems]


def read_table(address: str, graph: Graph, comfyui: Path | None = None, scores: bool = True) -> Table:
    """Reads a CSV file (comma, semicolon or tab; UTF-8) and binds it to the workflow. An empty cell keeps the
    workflow's own value. Paths are relative to the table's folder. `comfyui`: the folder of the ComfyUI that has the
    workflow's own files, if it is on this machine; `scores`: whether scores are measured. Raises `BatchError` if it is
    not such a file."""
    try:
        text = read(address).decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise BatchError(f"{address} cannot be read: {error}.") from error
    folder = Path() if is_url(address) else Path(address).resolve().parent
    head, *_ = text.splitlines() or [""]
    separator = max(",;\t", key=head.count)
    lines = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    names = [name.strip() for name in _cells(lines, address, 1) or []]
    if CLIP not in names:
        raise BatchError(
            f"{address} has no column 'clip': its first line names the columns, for "
            "instance clip,source_prompt,edit_prompt."
        )
    table = Table()
    for name in names:
        try:
            if not name or names.count(name) > 1:
                raise BatchError("this column has no name" if not name else "there are two columns of this name")
            table.columns[name] = bind(graph, name)
        except BatchError as error:
            table.problems.append(Problem(1, name, str(error)))
    own = OwnFiles(graph, comfyui, scores) if CLIP in table.columns else None
    found = own.besides(set(table.columns.values())).values() if own else ()
    missing = [Problem(1, "", text) for text in found if isinstance(text, str)]
    if missing:  # named once, not for each row
        table.problems, own = table.problems + missing, None
    seen: dict[str, int] = {}
    while (cells := _cells(lines, address, line := lines.line_num + 1)) is not None:
        if not any(cell.strip() for cell in cells):
            continue
        if len(cells) > len(names):
            table.problems.append(
                Problem(
                    line,
                    "",
                    f"{len(cells)} cells, but {len(names)} columns: put quotes around text that contains a separator",
                )
            )
            continue
        values = {name: cell.strip() for name, cell in zip(names, cells) if cell.strip() and name in table.columns}
        row = _row(table, line, values, folder, graph, own)
        if row is None:
            continue
        if row.key in seen:
            table.problems.append(Problem(line, "", f"the same edit as line {seen[row.key]}"))
            continue
        seen[row.key] = line
        table.rows.append(row)
    if not seen and not table.problems:
        raise BatchError(f"{address} has no rows.")
    return table


def _cells(lines, address: str, line: int) -> list[str] | None:
    """The next row of a table, which begins at `line`; None at the end. Raises `BatchError` for quotes that are not
    closed, which would swallow the rows after them, or not at a cell's ends."""
    try:
        return next(lines, None)
    except csv.Error as error:
        raise BatchError(
            f"{address}, line {line}: {error}. Quotes belong around a whole cell; one inside it is written twice."
        ) from error


def show_problems(problems: list[Problem], most: int = 50) -> str:
    """The problems as a table, by line."""
    problems = sorted(problems, key=lambda one: (one.line, one.column))
    width = max(len(one.column) for one in problems)
    lines = [f"  line {one.line:>4}  {one.column:<{width}}  {one.text}" for one in problems[:most]]
    if len(problems) > most:
        lines.append(f"  and {len(problems) - most} more")
    return "\n".join(lines)


def _row(
    table: Table, line: int, values: dict[str, str], folder: Path, graph: Graph, own: OwnFiles | None
) -> Row | None:
    """None if something is wrong; it is added to the problems. `own`: the workflow's own files."""
    before = len(table.problems)
    if CLIP not in values:
        table.problems.append(Problem(line, CLIP, "no clip is named"))
    files, set_to, frames = {}, {}, None
    # The clip first: a video that steers the edit may be the same in the workflow, but have a column of its own.
    for name, cell in sorted(values.items(), key=lambda value: value[0] != CLIP):
        column = table.columns[name]
        try:
            if column.file:
                source = find(cell, folder)
                files[name] = source
                set_to[column] = source.name
                if name == CLIP:
                    frames = count_frames(source)
            else:
                place = column.places[0]
                set_to[column] = parse(cell, graph[place.node]["inputs"][place.key])
        except BatchError as error:
            table.problems.append(Problem(line, name, str(error)))
    if len(table.problems) > before:
        return None
    for column, found in own.besides(set(set_to)).items() if own else ():
        if isinstance(found, Source):
            files[column.name], set_to[column] = found, found.name
        else:
            table.problems.append(Problem(line, "", found))
    if len(table.problems) > before:
        return None
    placed = {source.name: source for source in files.values()}
    return Row(line, values, files[CLIP], placed, graph, set_to, key_of(bound(graph, set_to)), frames)
