"""The JSON that a benchmark leaves in `benchmarks/results`: how and where it was made, and its rows."""

from __future__ import annotations

import json
from pathlib import Path

from .machine import machine


def write_results(file: Path, command: str, device: str, rows: list[dict], **further: object) -> None:
    """`command`: what follows `dev.py bench`; `device`: auto, cpu or cuda; `further`: other facts about the run."""
    about = {"command": f"python3 dev.py bench {command}", **machine(device), **further}
    file.write_text(json.dumps({**about, "rows": rows}, indent=2) + "\n", encoding="utf-8")
