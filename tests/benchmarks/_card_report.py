"""What was measured on a card, in JSON for machines and Markdown for people, on disk after every number."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any


class Report:
    """Parts with their tables and promises, in `card.json` and `card.md` of a folder. One process writes at a
    time; the next one reads what the last has left."""

    def __init__(self, folder: Path):
        self.json, self.markdown = folder / "card.json", folder / "card.md"
        folder.mkdir(parents=True, exist_ok=True)
        self.content: dict[str, Any] = {"about": {}, "parts": {}}
        if self.json.exists():
            self.content = json.loads(self.json.read_text(encoding="utf-8"))

    def part(self, name: str) -> dict[str, Any]:
        fresh = {"state": "waiting", "seconds": None, "tables": {}, "promises": [], "notes": []}
        return self.content["parts"].setdefault(name, fresh)

    def row(self, part: str, table: str, **cells: Any) -> None:
        self.part(part)["tables"].setdefault(table, []).append(cells)
        self.flush()

    def promise(self, part: str, what: str, measured: Any, wanted: str, kept: bool) -> None:
        self.part(part)["promises"].append(
            {"what": what, "measured": measured, "wanted": wanted, "kept": bool(kept)}
        )
        self.flush()

    def note(self, part: str, text: str) -> None:
        self.part(part)["notes"].append(text)
        self.flush()

    def value(self, part: str, table: str, **wanted: Any) -> dict[str, Any]:
        """The first row of a table with these cells; empty where there is none."""
        return next((row for row in self.rows(part, table) if wanted.items() <= row.items()), {})

    def rows(self, part: str, table: str) -> list[dict[str, Any]]:
        """Of a part that has run; else there are none."""
        return self.content["parts"].get(part, {}).get("tables", {}).get(table, [])

    @property
    def broken(self) -> list[str]:
        """Promises not kept, and parts that did not end as they should."""
        parts = self.content["parts"].items()
        ended = [
            f"{name}: {part['state']}" for name, part in parts if part["state"] not in ("done", "skipped")
        ]
        return ended + [
            f"{name}: {promise['what']}: {promise['measured']}, wanted {promise['wanted']}"
            for name, part in parts
            for promise in part["promises"]
            if not promise["kept"]
        ]

    def flush(self) -> None:
        for path, text in (
            (self.json, json.dumps(self.content, indent=1, default=str)),
            (self.markdown, self._markdown()),
        ):
            growing = path.with_suffix(path.suffix + ".part")
            growing.write_text(text, encoding="utf-8")
            os.replace(growing, path)

    def _markdown(self) -> str:
        lines = ["# PoseAnything on a card", ""]
        lines += [f"- {name}: {value}" for name, value in self.content["about"].items()]
        promises = [
            {"part": name, "what": p["what"], "measured": p["measured"], "wanted": p["wanted"]}
            | {"kept": "yes" if p["kept"] else "**NO**"}
            for name, part in self.content["parts"].items()
            for p in part["promises"]
        ]
        if promises:
            lines += ["", "## Promises", "", *_table(promises)]
        for name, part in self.content["parts"].items():
            took = f", {part['seconds']:.1f} s" if part["seconds"] is not None else ""
            lines += ["", f"## {name} ({part['state']}{took})"]
            for title, rows in part["tables"].items():
                lines += ["", f"### {title}", "", *_table(rows)]
            for text in part["notes"]:
                lines += ["", *(f"    {line}" for line in text.rstrip().splitlines())]
        return "\n".join(lines) + "\n"


def _table(rows: list[dict[str, Any]]) -> list[str]:
    columns = list(dict.fromkeys(name for row in rows for name in row))
    lines = [f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}"]
    return lines + [f"| {' | '.join(_cell(row.get(name, '')) for name in columns)} |" for row in rows]


def _cell(value: Any) -> str:
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    return text.replace("|", "\\|").replace("\n", " ")
