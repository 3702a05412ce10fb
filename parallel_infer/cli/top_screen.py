"""What `top` draws: readable on 80 columns, never taller than the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from parallel_infer.observe.rates import TIGHT, ModelRates, Rates, SourceRates, StageRates

Side = Literal["left", "right"]
_BAR = 20  # characters
_MARK = "bottleneck"
_STATE_STYLES = {"ready": "green", "degraded": "yellow", "loading": "cyan", "unavailable": "bold red"}
_OLD = 1.0  # seconds from which the newest frame of a live source is marked as old


def screen(found: Rates, server: str, width: int, height: int | None) -> RenderableType:
    """One look. `height` None: all of it, however long."""
    room = _rows_each(found, height)
    parts: list[RenderableType] = [_heading(found, server, width), Text()]
    parts.append(_models(found.models, room[0]))
    parts += [Text(), _stages(found, room[1])]
    if found.sources:
        parts += [Text(), _sources(found.sources, room[2])]
    return Group(*parts)


def waiting(server: str, text: str) -> RenderableType:
    """While there is nothing to show."""
    return Group(Text(server, style="bold"), Text(), Text(text))


def _rows_each(found: Rates, height: int | None) -> list[int]:
    """How many rows of models, stages and sources there is room for; the most crowded give way first."""
    wanted = [len(found.models), len(found.stages), len(found.sources)]
    if height is None:
        return wanted
    fixed = 2 + 2 + 2 + (2 if found.sources else 0)  # headings and the lines between
    if sum(wanted) <= height - fixed:
        return wanted
    while sum(wanted) > max(3, height - fixed - len(wanted)):  # each table may have a line that says how many more
        wanted[wanted.index(max(wanted))] -= 1
    return wanted


def _heading(found: Rates, server: str, width: int) -> Text:
    per_second = sum(model.per_second for model in found.models)
    left = Text(server, style="bold")
    right = (
        f"{per_second:,.1f} answers/s   {found.pending} pending   {found.clients} clients   up {_clock(found.uptime)}"
    )
    left.truncate(max(10, width - len(right) - 2), overflow="ellipsis")
    left.append(" " * max(1, width - left.cell_len - len(right)))
    return left.append(right)


def _table(*columns: tuple[str, Side]) -> Table:
    """The first column takes what room there is."""
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="reverse", expand=True)
    for number, (title, side) in enumerate(columns):
        table.add_column(title, justify=side, no_wrap=True, overflow="ellipsis", ratio=None if number else 1)
    return table


def _models(models: Sequence[ModelRates], room: int) -> Table:
    table = _table(
        ("model", "left"), ("state", "right"), ("fps", "right"), ("err/s", "right"), ("p50 ms", "right"),
        ("p99 ms", "right"), ("batch", "right"), ("queue", "right"), ("held up by", "right"),
    )  # fmt: skip
    for model in _most(models, room, lambda model: model.per_second):
        table.add_row(
            Text(model.name),
            Text(model.state, style=_STATE_STYLES.get(model.state, "")),
            f"{model.per_second:.1f}",
            _number(model.errors_per_second, "red"),
            _milliseconds(model.p50),
            _milliseconds(model.p99),
            f"{model.mean_batch:.1f}" if model.mean_batch else "-",
            str(model.waiting),
            Text(model.tight or "-", style="bold yellow" if model.tight else "dim"),
        )
    _say_more(table, len(models) - room)
    return table


def _stages(found: Rates, room: int) -> Table:
    table = _table(("stage", "left"), ("workers", "right"), ("work/s", "right"), ("busy", "right"), ("", "left"))
    table.columns[-1].min_width = _BAR + 1 + len(_MARK)
    bottleneck = found.bottleneck
    for stage in _in_order(found.stages, room):
        mark = Text()
        mark.append(_bar(stage.utilisation) + " ", style="yellow" if stage.utilisation >= TIGHT else "green")
        if stage is bottleneck:
            mark.append(_MARK, style="bold yellow")
        table.add_row(
            Text(f"{stage.name} {stage.model}".strip()),
            str(stage.workers),
            "-" if stage.per_second is None else f"{stage.per_second:.1f}",
            f"{stage.utilisation:.0%}",
            mark,
        )
    _say_more(table, len(found.stages) - room)
    return table


def _sources(sources: Sequence[SourceRates], room: int) -> Table:
    table = _table(
        ("source", "left"), ("fps", "right"), ("dropped/s", "right"), ("dropped", "right"), ("newest answer", "right")
    )
    for source in _most(sources, room, lambda source: source.age or 0.0):
        age = "-" if source.age is None else f"{source.age:.2f} s ago"
        table.add_row(
            Text(source.name),
            f"{source.per_second:.1f}",
            _number(source.dropped_per_second, "yellow"),
            str(source.dropped),
            Text(age, style="red" if source.age is not None and source.age >= _OLD else ""),
        )
    _say_more(table, len(sources) - room)
    return table


def _most(entries: Sequence[Any], room: int, key: Any) -> Sequence[Any]:
    """Those to show where there is not room for all: the greatest, in the order they came."""
    chosen = {id(entry) for entry in sorted(entries, key=key, reverse=True)[:room]}
    return [entry for entry in entries if id(entry) in chosen]


def _in_order(stages: Sequence[StageRates], room: int) -> Sequence[StageRates]:
    return _most(stages, room, lambda stage: stage.utilisation)


def _say_more(table: Table, hidden: int) -> None:
    if hidden > 0:
        table.caption = f"and {hidden} more"
        table.caption_justify = "left"


def _bar(share: float) -> str:
    """Eighths of a character, so that small changes show."""
    full, rest = divmod(round(share * _BAR * 8), 8)
    return ("█" * full + " ▏▎▍▌▋▊▉"[rest])[:_BAR].ljust(_BAR)


def _number(value: float, style: str) -> Text:
    return Text(f"{value:.1f}", style=style if value else "")


def _milliseconds(seconds: float) -> str:
    if not seconds:
        return "-"
    return f"{seconds * 1000:.1f}" if seconds < 1 else f"{seconds * 1000:.0f}"


def _clock(seconds: float) -> str:
    hours, rest = divmod(int(seconds), 3600)
    return f"{hours}:{rest // 60:02}:{rest % 60:02}"
