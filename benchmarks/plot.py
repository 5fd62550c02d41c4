"""The report as a picture: ``python -m benchmarks.plot RESULTS.json REPORT.png``.

For each scenario a bar a server, gateway's dark, and how it compares.  Bars are
drawn to the scale of their scenario: a page of milliseconds would hide the microseconds.
"""

from __future__ import annotations

import json
import sys
from io import BytesIO

_OURS, _FLOOR, _PEER, _TEXT, _GOOD, _BAD = (
    "#0b5c8f", "#d9d2c3", "#a9bccb", "#333333", "#1f7a3d", "#a8481f",
)  # fmt: skip
_COLUMNS = 3
#: A bar this many times the longest of gateway's and the best's is cut.
_LONGEST = 3.5
_COLOURS = 32


def panels(results):
    """[(title, [(server, µs)] cheapest first)] of the scenarios in which gateway is."""
    found = []
    for scenario in results["scenarios"]:
        bars = sorted(scenario["cpu"].items(), key=lambda item: item[1])
        if any(name == "gateway" for name, _cost in bars):
            found.append((scenario["title"], bars))
    return found


def verdict(bars):
    """gateway's cost to the best peer's: (ratio, that peer), or None without a peer."""
    costs = dict(bars)
    peers = [(cost, name) for name, cost in bars if not name.startswith(("gateway", "floor"))]
    if not peers:
        return None
    cost, name = min(peers)
    return costs["gateway"] / cost, name


def draw(results, path):
    from matplotlib import pyplot as plt  # noqa: PLC0415

    plt.rcParams.update({"font.size": 7, "font.family": "DejaVu Sans", "text.color": _TEXT})
    found = panels(results)
    rows = [found[at : at + _COLUMNS] for at in range(0, len(found), _COLUMNS)]
    bars = [max(len(each) for _title, each in row) for row in rows]
    heights = [count + 1.8 for count in bars]
    figure, axes = plt.subplots(
        len(rows), _COLUMNS, figsize=(12, sum(heights) * 0.15 + 0.7), squeeze=False,
        gridspec_kw={"height_ratios": heights, "wspace": 0.42, "hspace": 0.3},
    )  # fmt: skip
    for row, places, count in zip(rows, axes, bars, strict=True):
        for axis, (title, each) in zip(places, row, strict=False):
            _panel(axis, title, each, count)
        for axis in places[len(row) :]:
            axis.set_axis_off()
    tall = figure.get_figheight()
    figure.subplots_adjust(left=0.09, right=0.985, bottom=0.25 / tall, top=1 - 0.6 / tall)
    figure.suptitle(
        "CPU µs per request of the server's processes: shorter is better",
        x=0.01, y=1 - 0.1 / tall, va="top", ha="left", fontsize=12, fontweight="bold",
    )  # fmt: skip
    figure.text(0.01, 0.05 / tall, results["machine"], ha="left", va="bottom", fontsize=6)
    _save(figure, path)


def _save(figure, path):
    """Few colours make a small file."""
    from PIL import Image  # noqa: PLC0415

    drawn = BytesIO()
    figure.savefig(drawn, dpi=90)
    image = (
        Image.open(drawn)
        .convert("RGB")
        .quantize(_COLOURS, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    )
    image.save(path, optimize=True)


def _panel(axis, title, bars, room):
    """``room``: bars of the fullest panel beside it, so that all are as thick."""
    peers = [cost for name, cost in bars if not name.startswith("floor")]
    ours = dict(bars)["gateway"]
    most = min(max(peers), _LONGEST * max(ours, min(peers)))
    names = [name for name, _cost in bars]
    axis.barh(names, [min(cost, most) for _name, cost in bars], color=[_colour(n) for n in names])
    axis.set_ylim(room - 0.4, -0.6)
    for place, (name, cost) in enumerate(bars):
        text = f"{cost:,.0f}" if cost >= 100 else f"{cost:.1f}"
        axis.text(
            min(cost, most) + most * 0.015,
            place,
            f"» {text}" if cost > most else text,
            va="center",
            weight="bold" if name.startswith("gateway") else "normal",
        )
    axis.set_xlim(0, most * 1.2)
    axis.set_xticks([])
    axis.tick_params(axis="y", length=0)
    for label in axis.get_yticklabels():
        if label.get_text().startswith("gateway"):
            label.set_fontweight("bold")
            label.set_color(_OURS)
    axis.spines[:].set_visible(False)
    axis.set_title(title, loc="left", x=-0.36, fontsize=8, fontweight="bold")
    outcome = verdict(bars)
    if outcome:
        value, name = outcome
        axis.set_title(
            f"{value:.2f} x {name}", loc="right", fontsize=8, fontweight="bold",
            color=_GOOD if value <= 1 else _BAD,
        )  # fmt: skip


def _colour(name):
    if name.startswith("gateway"):
        return _OURS
    return _FLOOR if name.startswith("floor") else _PEER


def main():
    source, target = sys.argv[1:]
    with open(source, encoding="utf-8") as file:
        draw(json.load(file), target)


if __name__ == "__main__":
    main()
