"""The tables of `dhn bench`."""

from collections.abc import Iterable
from typing import Any

from rich.table import Table


def operator_table(result: dict[str, Any]) -> Table:
    """What `time_operators` returned."""
    table = _table(
        f"Operators (copy: {result['copy_gb_per_s']:.1f} GB/s)",
        texts=("op", "shape"),
        numbers=("reference ms", "ours ms", "ratio", "GB/s", "of copy"),
    )
    for row in result["rows"]:
        counted = row["gb_per_s"] is not None
        table.add_row(
            row["op"],
            row["shape"],
            _milliseconds(row["reference"]),
            _milliseconds(row["ours"]),
            f"{row['ratio']:.1f}",
            f"{row['gb_per_s']:.1f}" if counted else "-",
            f"{row['of_copy_bandwidth']:.0%}" if counted else "-",
        )
    return table


def decode_table(result: dict[str, Any]) -> Table:
    """What `time_decode` returned."""
    table = _table(
        f"Decode: {result['median_ratio']:.0f} times faster at the median",
        numbers=("people", "size", "published ms", "ours ms", "ratio", "x amax"),
    )
    for row in sorted(result["rows"], key=lambda row: row["people"]):
        table.add_row(
            str(row["people"]),
            "x".join(map(str, row["size"])),
            _milliseconds(row["published"]),
            _milliseconds(row["ours"]),
            f"{row['ratio']:.0f}",
            f"{row['of_amax']:.1f}",
        )
    return table


def sweep_table(rows: list[dict[str, Any]]) -> Table:
    """What `time_sweep` returned."""
    table = _table("Decode, as it grows", numbers=("axis", "value", "ours ms"))
    for row in rows:
        table.add_row(row["axis"], str(row["value"]), _milliseconds(row["ours"]))
    return table


def network_table(result: dict[str, Any]) -> Table:
    """What `time_networks` returned."""
    first = result["rows"][0]
    size, batch = first["input_size"], first["batch_size"]
    passes = "plain and mirrored" if first["flip"] else "no flip test"
    table = _table(
        f"Networks: {batch} x {size} x {size}, {passes}, {first['threads']} threads",
        texts=("network", "computed in"),
        numbers=("parameters", "GFLOPs", "latency ms", "images/s", "peak MB"),
    )
    for row in result["rows"]:
        table.add_row(
            row["network"],
            row["precision"] + (", compiled" if row["compile"] else ""),
            f"{row['parameters'] / 1e6:.2f} M",
            f"{row['gflops']:.1f}",
            _milliseconds(row["latency"]),
            f"{row['images_per_s']:.2f}",
            f"{row['peak_bytes'] / 1e6:.0f}",
        )
    return table


def pipeline_table(result: dict[str, Any]) -> Table:
    """What `time_pipeline` returned."""
    settings = result["settings"]
    stages = list(result["rows"][0]["stages"])
    table = _table(
        f"dhn predict with overlays and JSON: {settings['images']} images or frames, "
        f"{'plain and mirrored' if settings['flip'] else 'no flip test'}, "
        f"{settings['threads']} threads; stages in ms per image",
        texts=("network", "source"),
        numbers=("alone images/s", "whole images/s", "of network", "CPU ms", *stages),
    )
    for row in result["rows"]:
        table.add_row(
            row["network"],
            row["source"],
            f"{1 / row['alone']['seconds']:.1f}",
            f"{1 / row['whole']['seconds']:.1f}",
            f"{row['of_network']:.2f}",
            f"{_short(1e3 * row['alone']['cpu_seconds'])} -> "
            f"{_short(1e3 * row['whole']['cpu_seconds'])}",
            *(_short(1e3 * row["stages"][name]["seconds"]) for name in stages),
        )
    return table


def _table(title: str, *, texts: Iterable[str] = (), numbers: Iterable[str]) -> Table:
    table = Table(title=title)
    for i, text in enumerate(texts):
        table.add_column(text, no_wrap=i == 0)  # others wrap where the terminal is narrow
    for number in numbers:
        table.add_column(number, justify="right", no_wrap=True)
    return table


def _milliseconds(timing: dict[str, float]) -> str:
    """The median and, in brackets, the quartiles, of three digits at least."""
    median, low, high = (_short(1e3 * timing[name]) for name in ("median", "low", "high"))
    return f"{median} ({low}-{high})"


def _short(number: float) -> str:
    return f"{number:.3g}" if number < 999.5 else f"{number:.0f}"
