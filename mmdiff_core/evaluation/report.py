"""What was measured: `results.json` with every number, `results.md` with a table, and the comparison of arms."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from .bootstrap import Interval, difference, interval

Scores = Mapping[str, Mapping[str, float]]
"""Measure -> case -> number. A measure may leave cases out that it says nothing about."""


@dataclass(frozen=True)
class Results:
    """One benchmark. arms: in the order of the table, oracles among them; full: the arm that others are compared with,
    or None. groups: case -> identity. about: facts for the reader (protocol, files, versions)."""

    about: Mapping[str, object]
    arms: Mapping[str, Scores]
    groups: Mapping[str, str]
    full: str | None = None

    def summary(self) -> dict[str, dict[str, Interval]]:
        """Arm -> measure -> mean and interval."""
        return {
            arm: {measure: interval(values, self.groups) for measure, values in scores.items() if values}
            for arm, scores in self.arms.items()
        }

    def differences(self) -> dict[str, dict[str, Interval]]:
        """Arm -> measure -> this arm less the full one, paired by case."""
        if self.full is None:
            return {}
        ours = self.arms[self.full]
        found = {
            arm: {
                measure: difference(ours[measure], values, self.groups)
                for measure, values in scores.items()
                if ours.get(measure, {}).keys() & values.keys()
            }
            for arm, scores in self.arms.items()
            if arm != self.full
        }
        return {arm: row for arm, row in found.items() if row}

    def by_group(self) -> dict[str, dict[str, dict[str, float]]]:
        """Arm -> measure -> identity -> mean."""
        found: dict[str, dict[str, dict[str, float]]] = {}
        for arm, scores in self.arms.items():
            for measure, values in scores.items():
                rows: dict[str, list[float]] = {}
                for case in sorted(values):
                    rows.setdefault(self.groups[case], []).append(values[case])
                means = {group: sum(row) / len(row) for group, row in rows.items()}
                found.setdefault(arm, {})[measure] = dict(sorted(means.items()))
        return found


def write(results: Results, folder: Path) -> None:
    """`results.json` and `results.md` in a folder that exists."""
    content = {
        "about": results.about,
        "full": results.full,
        "summary": _plain(results.summary()),
        "differences": _plain(results.differences()),
        "by_identity": results.by_group(),
        "values": results.arms,
        "groups": results.groups,
    }
    (folder / "results.json").write_text(json.dumps(content, indent=1, allow_nan=False))
    (folder / "results.md").write_text(markdown(results))


def markdown(results: Results) -> str:
    """The table of means, the table of differences, and what they are."""
    lines = [f"# {results.about['protocol']}", ""]
    lines += [f"- {name}: {value}" for name, value in results.about.items() if name != "protocol"]
    lines += ["", "Means over pictures; in brackets the 95 % bootstrap interval over identities.", ""]
    lines += _table(results.summary(), "")
    if differences := results.differences():
        lines += ["", f"Less `{results.full}`, picture by picture; bold where the interval leaves 0 out.", ""]
        lines += _table(differences, "+")
    return "\n".join(lines) + "\n"


def _table(rows: Mapping[str, Mapping[str, Interval]], sign: str) -> list[str]:
    measures = list(dict.fromkeys(measure for row in rows.values() for measure in row))
    lines = ["| measure | " + " | ".join(rows) + " |", "|---" * (len(rows) + 1) + "|"]
    for measure in measures:
        cells = [_cell(row[measure], sign) if measure in row else "" for row in rows.values()]
        lines.append(f"| {measure} | " + " | ".join(cells) + " |")
    return lines


def _cell(found: Interval, sign: str) -> str:
    if found.low is None:
        return f"{found.mean:{sign}.3f}"
    text = f"{found.mean:{sign}.3f} [{found.low:{sign}.3f}, {found.high:{sign}.3f}]"
    return f"**{text}**" if sign and (found.low > 0 or found.high < 0) else text


def _plain(rows: Mapping[str, Mapping[str, Interval]]) -> dict:
    return {arm: {measure: found._asdict() for measure, found in row.items()} for arm, row in rows.items()}
