"""What one judges a data set by: a table of videos and clips, and a page with plots and contact sheets."""

from __future__ import annotations

import csv
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import fields
from html import escape
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from ..datasets.dataset import read_index, reject_examples
from .stages import Record, XPoseError
from .store import SHEETS, WorkFolder, clip_id

TABLE, PARQUET, PAGE, DATA = "report.csv", "report.parquet", "index.html", "clips.js"
LABEL = 68
"""Letters of a bar's label that are shown."""
FIGURES = ("area_share", "mask_share", "area_jump", "skeleton_share", "outside", "identity_changes")
CHECKS = {"outside": 0.02, "area_jump": 0.3, "identity_changes": 0.5}
"""The self-checks, and the value of each that is bad."""


def trouble(record: Record) -> float:
    """How bad a clip looks by its self-checks, 1 and more is bad: a skeleton outside of its mask, an area
    that jumps, segments that come and go."""
    return max((record.figures.get(name, 0.0) / bad for name, bad in CHECKS.items()), default=0.0)


def write_report(dataset: Path) -> str:
    """Write `report.csv`, `report.parquet`, `index.html` and `clips.js`; returns a summary, with a line for
    each of the commonest reasons. Raises `XPoseError`."""
    work = WorkFolder(dataset)
    settings, decisions = work.settings(), work.decisions()
    kept = dropped = 0
    reasons: Counter[str] = Counter()
    rows: list[list] = []
    lines: list[dict] = []
    counts = {name: Counter() for name in ("motion_type", "body_part", "category")}
    segments: Counter[tuple[int, str]] = Counter()
    for record, name in work.records():
        decision = {True: "accepted", False: "rejected", None: ""}[decisions.get(name)]
        place = f"{SHEETS}/{name}.jpg" if name and (dataset / SHEETS / f"{name}.jpg").exists() else ""
        lines.append(_line(record, decision, place))
        if record.kept:
            kept += 1
            segments[record.segments, record.category or "unknown"] += 1
            for axis, count in counts.items():
                count[getattr(record, axis) or "unknown"] += 1
        else:
            dropped += 1
            reasons[f"{record.stage}: {_kind(record.reason)}"] += 1
        rows.append(_row(record, name, bool(place), decision))
    _write_tables(dataset, lines)
    rows.sort(key=lambda row: (-row[2], row[0]))
    with _replaced(dataset / DATA) as file:
        text = json.dumps(rows, separators=(",", ":"))
        file.write(f"const CLIPS = {text};\n")
    summary = f"{kept} clips kept, {dropped} videos and clips dropped"
    with _replaced(dataset / PAGE) as file:
        file.write(_page(dataset.resolve().name, summary, settings, segments, counts, reasons))
    return "\n".join([summary, *(f"  {count} x {reason}" for reason, count in reasons.most_common(5))])


def _line(record: Record, decision: str, sheet: str) -> dict:
    """A line of the tables; None is a figure that was not measured."""
    own = {name: getattr(record, name) for name in Record.__dataclass_fields__ if name != "figures"}
    figures = {name: record.figures.get(name) for name in FIGURES}
    return {**own, **figures, "trouble": round(trouble(record), 3), "decision": decision, "sheet": sheet}


def _write_tables(dataset: Path, lines: list[dict]) -> None:
    own, floats = [field for field in fields(Record) if field.name != "figures"], (*FIGURES, "trouble")
    kinds = {"str": pa.string(), "bool": pa.bool_(), "int": pa.int64(), "float": pa.float64()}
    schema = pa.schema(
        [(field.name, kinds[str(field.type)]) for field in own]
        + [(name, pa.float64()) for name in floats]
        + [(name, pa.string()) for name in ("decision", "sheet")]
    )
    with _replaced(dataset / TABLE) as file:
        table = csv.DictWriter(file, schema.names)
        table.writeheader()
        table.writerows(lines)
    shown = [
        {name: _shown(value) if isinstance(value, str) else value for name, value in line.items()}
        for line in lines
    ]
    growing = dataset / f"{PARQUET}.part"
    try:
        pq.write_table(pa.Table.from_pylist(shown, schema), growing)
        os.replace(growing, dataset / PARQUET)
    finally:
        growing.unlink(missing_ok=True)


def _row(record: Record, name: str, shown: bool, decision: str) -> list:
    words = [record.category, record.motion_type, record.body_part, record.caption, record.notes]
    about = (
        f"{record.begin:.1f} to {record.end:.1f} s, {record.width} x {record.height}, {record.frames} frames"
    )
    if record.segments:
        about += f", {record.segments} segments ({record.complexity})"
    checks = ", ".join(f"{name} {record.figures[name]:.3g}" for name in CHECKS if name in record.figures)
    reason = f"{record.stage}: {record.reason}" if record.reason else ""
    return [
        _shown(record.clip or record.video),
        name,
        round(trouble(record), 3),
        int(record.kept),
        reason,
        ". ".join([about, *filter(None, words)]),
        checks,
        decision,
        int(shown),
    ]


def _shown(name: str) -> str:
    """A name that any page can hold: bytes that are no text are shown as escapes."""
    return name.encode("utf-8", "backslashreplace").decode()


def _kind(reason: str) -> str:
    """A reason without its figures, so that like ones are counted together."""
    return "".join("N" if character.isdigit() else character for character in reason.split(":")[0])[:90]


class _replaced:
    """A text file that takes the place of the old one once it is whole."""

    def __init__(self, path: Path):
        self._path, self._growing = path, path.with_name(path.name + ".part")

    def __enter__(self):
        self._file = open(self._growing, "w", encoding="utf-8", errors="backslashreplace", newline="")
        return self._file

    def __exit__(self, kind, *error):
        self._file.close()
        if kind is None:
            os.replace(self._growing, self._path)
        else:
            self._growing.unlink(missing_ok=True)


def review(dataset: Path, decisions: Path) -> tuple[int, int]:
    """Take up decisions that the page saved, together with those from before; returns how many clips are left
    out of the data set now, and how many that were dropped wait for the run to go on, to be made after all.
    Raises `XPoseError`, `DatasetError`."""
    try:
        said = json.loads(decisions.read_text(encoding="utf-8"))
        assert isinstance(said, dict) and all(isinstance(value, bool) for value in said.values())
    except (OSError, ValueError, AssertionError) as error:
        raise XPoseError(f"{decisions} holds no decisions ({error}); save them on the page.") from error
    work = WorkFolder(dataset)
    work.settings()
    kept = [name for record, name in work.records() if record.kept]
    keys = dict(zip(kept, _keys(dataset))) if kept else {}
    dropped = {clip_id(span): span for span in work.dropped()}
    unknown = [name for name in said if name not in keys and name not in dropped]
    if unknown:
        raise XPoseError(
            f"{decisions} is about {len(unknown)} clips that {dataset} doesn't hold, such as {unknown[0]};"
            " choose the page's own."
        )
    every = work.decisions() | said
    work.write_decisions(every)
    rejected = [keys[name] for name, accepted in every.items() if not accepted and name in keys]
    if kept:
        reject_examples(dataset, rejected)
    for name, accepted in said.items():
        if accepted and name in dropped:
            work.accept(dropped[name])
    return len(rejected), work.waiting()


def _keys(dataset: Path) -> Iterator[str]:
    """The examples' keys in the order in which they were packed."""
    for number, entry in enumerate(read_index(dataset)["shards"]):
        for place in range(entry["examples"]):
            yield f"{number:06d}-{place:06d}"


# --- the page


def _page(title: str, summary: str, settings: dict, segments, counts, reasons) -> str:
    plots = [_segment_plot(segments)]
    for name, label in (("motion_type", "Motion"), ("body_part", "Moving part"), ("category", "Subject")):
        if set(counts[name]) - {"unknown"}:
            plots.append(_bars(label, counts[name].most_common(15)))
    if reasons:
        plots.append(_bars("Dropped, and why", reasons.most_common(15)))
    stages = ", ".join(f"{kind} {settings[kind] or 'none'}" for kind in ("filter", "subject", "skeleton"))
    notes = []
    if settings["subject"] == "flow":
        notes.append(
            "Subjects were found without weights, by colour and motion: look at the masks before you train on"
            " them."
        )
    if not settings["filter"]:
        notes.append(
            "No filter looked at what is seen: categories are those that were given by hand, if any."
        )
    return _PAGE.format(
        title=escape(title),
        summary=escape(summary),
        stages=escape(stages),
        notes=" ".join(notes),
        plots="\n".join(plots),
        key=json.dumps(f"xpose {title}").replace("</", "<\\/"),
    )


def _bars(label: str, counted: Iterable[tuple[str, int]]) -> str:
    counted = list(counted)
    most = max((count for _, count in counted), default=1)
    rows = []
    for number, (name, count) in enumerate(counted):
        y = 26 + 20 * number
        rows.append(
            f'<text x="0" y="{y + 11}">{escape(_shown(name)[:LABEL])}</text>'
            f'<rect x="450" y="{y}" width="{max(120 * count / most, 1):.1f}" height="14"/>'
            f'<text x="{456 + 120 * count / most:.0f}" y="{y + 11}">{count}</text>'
        )
    height = 32 + 20 * len(counted)
    head = f'<text class="h" y="14">{escape(label)}</text>'
    return f'<svg width="620" height="{height}">{head}{"".join(rows)}</svg>'


def _segment_plot(segments: Counter) -> str:
    """The number of segments, and whose they are (the left of the paper's Figure 3)."""
    if not segments:
        return ""
    totals: Counter[int] = Counter()
    categories: Counter[str] = Counter()
    for (number, category), count in segments.items():
        totals[number] += count
        categories[category] += count
    shown = [category for category, _ in categories.most_common(8)]
    hue = {category: f"hsl({45 * index},55%,55%)" for index, category in enumerate(shown)}
    columns, most = range(1, max(max(totals), 10) + 1), max(totals.values())
    parts = []
    for number in columns:
        x, y = 20 + 34 * (number - 1), 190.0
        for category in [*shown, None]:
            if category is None:
                count = sum(c for (n, name), c in segments.items() if n == number and name not in hue)
            else:
                count = segments.get((number, category), 0)
            if count:
                height = 150 * count / most
                y -= height
                colour = hue.get(category, "#999")
                parts.append(
                    f'<rect x="{x}" y="{y:.1f}" width="26" height="{height:.1f}" style="fill:{colour}"/>'
                )
        parts.append(f'<text x="{x + 8}" y="206">{number}</text>')
        if totals[number]:
            parts.append(f'<text x="{x + 4}" y="{y - 3:.1f}">{totals[number]}</text>')
    for label, low, high in (("simple", 1, 3), ("medium", 4, 6), ("complex", 7, 10)):
        left, right = 20 + 34 * (low - 1), 46 + 34 * (high - 1)
        parts.append(f'<path d="M{left} 212H{right}"/><text x="{left}" y="226">{label}</text>')
    wide = 40 + 34 * len(columns)
    for index, category in enumerate(shown):
        parts.append(
            f'<rect x="{wide}" y="{30 + 18 * index}" width="12" height="12" style="fill:{hue[category]}"/>'
            f'<text x="{wide + 18}" y="{41 + 18 * index}">{escape(_shown(category))}</text>'
        )
    return (
        f'<svg width="{wide + 180}" height="232"><text class="h" y="14">Segments of a skeleton</text>'
        f"{''.join(parts)}</svg>"
    )


_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>{title}</title>
<style>
body {{ font: 14px system-ui, sans-serif; margin: 24px; max-width: 1500px; background: #fafafa; color: #222 }}
svg {{ background: #fff; padding: 10px; margin: 4px; font-size: 12px; vertical-align: top }}
svg rect {{ fill: #4878a8 }} svg path {{ stroke: #888 }} svg .h {{ font-weight: 600; font-size: 14px }}
article {{ background: #fff; margin: 8px 0; padding: 8px 12px; border-left: 6px solid #6a6 }}
article.dropped {{ border-color: #bbb }} article.bad {{ border-color: #e90 }}
article.dropped.accepted {{ border-color: #6a6 }}
article.rejected {{ border-color: #c33; opacity: .6 }}
article img {{ max-width: 100%; display: block; margin-top: 6px }}
small {{ color: #666 }} button {{ margin: 2px }} article button {{ margin-left: 8px }}
button[aria-pressed=true] {{ background: #4878a8; color: #fff }}
nav {{ position: sticky; top: 0; background: #fafafae0; padding: 8px 0 }}
</style>
<h1>{title}</h1>
<p>{summary}. Stages: {stages}. The table is <a href="report.csv">report.csv</a>, and
<a href="report.parquet">report.parquet</a>.</p>
<p>{notes}</p>
<div>{plots}</div>
<h2>Clips, the worst first</h2>
<nav>Show <select id="which"><option value="kept">kept</option><option value="dropped">dropped</option>
<option value="all">all</option></select>
<input id="find" placeholder="find in names and words">
<button id="save">Save decisions</button>
<small>A decision is kept in this browser until it is saved; then run
<code>poseanything-xpose review DATASET --decisions decisions.json</code>.</small></nav>
<main id="clips"></main><button id="more">More</button>
<script src="clips.js"></script>
<script>
const KEY = {key}, STEP = 60, list = document.getElementById("clips");
const decided = JSON.parse(localStorage.getItem(KEY) || "{{}}");
let shown = 0;
function element(name, text, kind) {{
  const made = document.createElement(name);
  made.textContent = text; if (kind) made.className = kind;
  return made;
}}
function matching() {{
  const which = document.getElementById("which").value;
  const words = document.getElementById("find").value.toLowerCase();
  return CLIPS.filter(c => (which === "all" || (which === "kept") === !!c[3]) &&
    (!words || (c[0] + c[4] + c[5]).toLowerCase().includes(words)));
}}
function draw(again) {{
  if (again) {{ list.replaceChildren(); shown = 0; }}
  const clips = matching();
  for (const clip of clips.slice(shown, shown + STEP)) {{
    const [name, id, trouble, kept, reason, about, checks, before, sheet] = clip;
    const box = element("article", "");
    const decision = () => id in decided ? (decided[id] ? "accepted" : "rejected") : before;
    const judged = () => decision() === "rejected" ? "rejected" : trouble >= 1 ? "bad" : "";
    const buttons = [];
    const mark = () => {{
      box.className = kept ? judged() : "dropped " + decision();
      for (const [button, says] of buttons) button.ariaPressed = decision() === says;
    }};
    box.append(element("b", name), " ", element("small", about + (checks ? ". " + checks : "")));
    if (reason) box.append(element("p", reason));
    const choices = kept ? [["Accept", true], ["Reject", false]] : [["Accept all the same", true]];
    if (id) for (const [label, value] of choices) {{
      const button = element("button", label);
      button.onclick = () => {{
        decided[id] = value;
        localStorage.setItem(KEY, JSON.stringify(decided));
        mark();
      }};
      buttons.push([button, value ? "accepted" : "rejected"]);
      box.append(button);
    }}
    if (sheet) {{
      const image = document.createElement("img");
      image.loading = "lazy";
      image.src = "sheets/" + id + ".jpg";
      image.alt = "frames, masks and skeletons";
      box.append(image);
    }}
    mark(); list.append(box);
  }}
  shown += STEP;
  document.getElementById("more").hidden = shown >= clips.length;
}}
document.getElementById("more").onclick = () => draw(false);
document.getElementById("which").onchange = document.getElementById("find").oninput = () => draw(true);
document.getElementById("save").onclick = () => {{
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([JSON.stringify(decided)], {{ type: "application/json" }}));
  link.download = "decisions.json"; link.click();
}};
draw(true);
</script>
</html>
"""
