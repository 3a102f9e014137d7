"""Prints the figures of compare.sh as Markdown tables: `compare_table.py FILE.tsv`.

A figure is the median over the rounds; a ratio is taken within each round first. Where all loads
were run it ends by a line for each floor: held, or NOT held.
"""

from __future__ import annotations

import csv
import math
import sys
from collections import defaultdict
from collections.abc import Callable
from statistics import median

US = "mahoraga"
TITLES = {
    US: "mahoraga",
    "haproxy": "HAProxy",
    "haproxy-splice": "HAProxy, splice",
    "nginx": "nginx",
}
COSTS = {
    ("latency", "cpu"): "µs of CPU per request, 1 connection",
    ("small64", "cpu"): "µs of CPU per request, 64 connections",
    ("small1000", "cpu"): "µs of CPU per request, 1000 connections",
    ("connect", "cpu"): "µs of CPU per connection with one request",
    ("stream2", "cpu"): "CPU-s per GB, 2 streams",
    ("stream8", "cpu"): "CPU-s per GB, 8 streams",
    ("memory", "memory"): "bytes per idle connection",
}
RATES = {
    "latency": "req/s, 1 connection",
    "small64": "req/s, 64 connections",
    "small1000": "req/s, 1000 connections",
    "connect": "conn/s",
    "stream2": "Gbit/s, 2 streams",
    "stream8": "Gbit/s, 8 streams",
}
PEERS = [proxy for proxy in TITLES if proxy != US]
# What is promised of the balancer: loads, metric, the peers of which the best counts, the most that
# its ratio to them may be.
FLOORS = {
    "small requests, to the best peer": (["small64", "small1000"], "cpu", PEERS, 1.0),
    "a connection per request, to the best peer": (["connect"], "cpu", PEERS, 1.0),
    "stream, to HAProxy with splice": (["stream2", "stream8"], "cpu", ["haproxy-splice"], 0.80),
    "stream, to nginx": (["stream2", "stream8"], "cpu", ["nginx"], 0.35),
    "idle memory, to HAProxy": (["memory"], "memory", ["haproxy"], 0.2),
}

Figures = dict[tuple[str, str, str], dict[int, float]]  # (load, metric, proxy) -> round -> value


def read(path: str) -> Figures:
    figures: Figures = defaultdict(dict)
    with open(path, encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file, delimiter="\t"):
            key = row["load"], row["metric"], row["proxy"]
            figures[key][int(row["round"])] = float(row["value"])
    return figures


def number(value: float) -> str:
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    if abs(value) >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.3g}"


def ratios_to(figures: Figures, load: str, metric: str, peers: list[str]) -> list[float]:
    """For each round our figure to the least of the peers'."""
    ours = figures[load, metric, US]
    return [
        own / least
        for turn, own in ours.items()
        if (least := min(figures[load, metric, peer][turn] for peer in peers)) > 0
    ]


def ratio(figures: Figures, load: str, metric: str, peers: list[str]) -> str:
    ratios = ratios_to(figures, load, metric, peers)
    if not ratios:
        return "–"
    return f"{median(ratios):.2f} ({min(ratios):.2f}–{max(ratios):.2f})"


def print_table(head: list[str], rows: list[list[str]]) -> None:
    if rows:
        lines = [head, ["---"] * len(head), *rows]
        print("\n".join("| " + " | ".join(line) + " |" for line in lines), end="\n\n")


def print_costs(figures: Figures) -> None:
    against = {"best peer": PEERS, "HAProxy, splice": ["haproxy-splice"], "nginx": ["nginx"]}
    rows = []
    for (load, metric), title in COSTS.items():
        if (load, metric, US) in figures:
            cells = [number(median(figures[load, metric, p].values())) for p in TITLES]
            cells += [ratio(figures, load, metric, group) for group in against.values()]
            rows.append([title, *cells])
    print_table(["cost of the proxy", *TITLES.values(), *(f"to {name}" for name in against)], rows)


def print_rates(figures: Figures) -> None:
    def row(title: str, cell: Callable[[str], str]) -> list[str]:
        return [title, *map(cell, TITLES)]

    rows = []
    for load, title in RATES.items():
        if (load, "rate", US) not in figures:
            continue

        def of(metric: str, proxy: str, scale: float = 1, load: str = load) -> str:
            return number(median(figures[load, metric, proxy].values()) / scale)

        rows.append(row(title, lambda proxy: of("rate", proxy)))
        if (load, "p50", US) in figures:
            times = [f"{of('p50', p, 1e3)} / {of('p99', p, 1e3)}" for p in TITLES]
            rows.append(["p50 / p99, ms", *times])
    if ("memory", "before", US) in figures:
        mib = {p: median(figures["memory", "before", p].values()) / 2**20 for p in TITLES}
        rows.append(row("MiB resident before any connection", lambda proxy: number(mib[proxy])))
    print_table(["with one core for load and server", *TITLES.values()], rows)


def print_errors(figures: Figures) -> None:
    for (load, metric, proxy), rounds in figures.items():
        if metric == "errors" and any(rounds.values()):
            print(f"Failed requests of {TITLES[proxy]}, {load}: {sum(rounds.values()):.0f}\n")


def print_floors(figures: Figures) -> None:
    if any((load, metric, US) not in figures for load, metric in COSTS):
        return
    for title, (loads, metric, peers, most) in FLOORS.items():
        for load in loads:
            ratios = ratios_to(figures, load, metric, peers)
            # Without a ratio nothing was shown, so nothing is held.
            found = median(ratios) if ratios else math.nan
            verdict = "held" if found <= most else "NOT held"
            print(f"{verdict}: {title} ({load}): {found:.3f}, at most {most:.2f}")
    print()


if __name__ == "__main__":
    table = read(sys.argv[1])
    print_costs(table)
    print_rates(table)
    print_errors(table)
    print_floors(table)
