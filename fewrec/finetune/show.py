"""The table of a fine-tuning run, for the terminal and as Markdown, from its results alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fewrec.report.numbers import interval, markdown_text, one_line, short

if TYPE_CHECKING:
    from rich.table import Table

COLUMNS = ("row", "test MSE [95 %]", "MAE [95 %]", "RMSE [95 %]", "RMSE − bias [95 %]", "fit s", "predict s")


def cells(row: dict[str, Any], timings: dict[str, Any]) -> list[str]:
    """Return a row's texts, by ``COLUMNS``."""
    figures = [interval(row[name], row[f"{name}_low"], row[f"{name}_high"], sign=name.startswith("diff"))
               for name in ("mse", "mae", "rmse", "diff_bias")]  # fmt: skip
    seconds = timings["rows"][row["label"]]
    return [one_line(row["label"]), *figures, short(seconds["fit_s"]), short(seconds["predict_s"])]


def as_table(results: dict[str, Any], timings: dict[str, Any]) -> Table:
    """Return the table for a terminal; trivial rows are in italics."""
    from rich.table import Table
    from rich.text import Text

    data = results["data"]
    table = Table(
        title=Text(f"{data['test_ratings']:,} test ratings of {data['test_users']:,} users"), title_justify="left"
    )
    for number, name in enumerate(COLUMNS):
        table.add_column(Text(name), justify="right" if number else "left", overflow="fold")
    for row in results["rows"]:
        table.add_row(*(Text(cell) for cell in cells(row, timings)), style="italic" if row["trivial"] else None)
    return table


def as_markdown(results: dict[str, Any], timings: dict[str, Any]) -> str:
    """Return the same table as Markdown."""
    lines = ["| " + " | ".join(COLUMNS) + " |", "| --- |" + " ---: |" * (len(COLUMNS) - 1)]
    for row in results["rows"]:
        label, *rest = cells(row, timings)
        shown = markdown_text(label)
        lines.append("| " + " | ".join([f"*{shown}*" if row["trivial"] else shown, *rest]) + " |")
    return "\n".join(lines) + "\n"
