#!/usr/bin/env bash
# The figures of docs/strategies.md, from `mahoraga simulate`: the tables between its
# `<!-- simulate: ... -->` and `<!-- end -->`, and docs/strategies.svg.
#
#   scripts/strategies-docs.sh            writes them again
#   scripts/strategies-docs.sh --check    fails when a p99 differs by more than 5%
#
# A seed has the same figures wherever the C library's logarithms and powers end in the same bits;
# --check leaves room for those that do not. By environment:
#   MAHORAGA=PATH   the binary (default: what `cargo build --release` makes now)

set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=../loadtest/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../loadtest/lib.sh"
begin_figures "$@"

"$MAHORAGA" simulate --json --svg "$WORK/strategies.svg" >"$WORK/seed-1.json"
if [[ $mode == write ]]; then
    compared=(--strategy round_robin --strategy least_connections --strategy least_time
        --strategy predictive --scenario slow_backend --scenario busy_sessions --scenario burst
        --scenario daily_wave)
    for seed in 1 2 3 4 5; do
        "$MAHORAGA" simulate --json "${compared[@]}" --seed "$seed" >"$WORK/compared-$seed.json"
    done
    cp "$WORK/strategies.svg" "$REPO/docs/strategies.svg"
fi

python3 - "$mode" "$WORK" "$REPO/docs/strategies.md" <<'PYTHON'
import json
import re
import sys

mode, work, docs = sys.argv[1:]
BLOCK = r"(<!-- simulate: %s -->\n)(.*?)(<!-- end -->)"


def outcomes(name):
    with open(f"{work}/{name}.json") as file:
        return {(o["scenario"], o["strategy"]): o for o in json.load(file)}


def row(*cells):
    return "| " + " | ".join(cells) + " |\n"


def table(head, rows):
    return row(*head) + row(*["---"] * len(head)) + "".join(row(*cells) for cells in rows)


def block(text, name):
    found = re.search(BLOCK % name, text, re.DOTALL)
    if not found:
        sys.exit(f"{docs} has no block `simulate: {name}`")
    return found[2]


of = outcomes("seed-1")
scenarios = list(dict.fromkeys(scenario for scenario, _ in of))
strategies = list(dict.fromkeys(strategy for _, strategy in of))


def waits():
    head = ["p99 of waiting, ms"] + [f"`{scenario}`" for scenario in scenarios]
    p99 = lambda strategy: [f"{of[s, strategy]['wait_p99_ms']:,.0f}" for s in scenarios]
    return table(head, [[f"`{strategy}`", *p99(strategy)] for strategy in strategies])


def shares():
    head = ["", "imbalance, `slow_backend`", "fed to the black hole",
            "not as before, `leave_and_return`", "kept, `leave_and_return`"]
    percent = lambda share: "" if share is None else f"{share:.1%}"

    def cells(strategy):
        left = of["leave_and_return", strategy]
        return [f"`{strategy}`",
                f"{of['slow_backend', strategy]['imbalance']:.2f}",
                f"{of['black_hole', strategy]['black_hole']:.2f}x",
                percent(left["not_as_before"]), percent(left["kept"])]

    return table(head, map(cells, strategies))


def ratios():
    seeds = [outcomes(f"compared-{seed}") for seed in range(1, 6)]
    compared = list(dict.fromkeys(scenario for scenario, _ in seeds[0]))

    def cell(scenario, one, other):
        p99 = lambda of, strategy: of[scenario, strategy]["wait_p99_ms"]
        found = sorted(p99(of, one) / p99(of, other) for of in seeds)
        digits = 3 if found[-1] < 0.1 else 2
        return f"{found[2]:.{digits}f} ({found[0]:.{digits}f}–{found[-1]:.{digits}f})"

    pairs = [("least_time", "round_robin"), ("least_time", "least_connections"),
             ("predictive", "least_connections"), ("predictive", "least_time")]
    rows = [[f"`{one}` to `{other}`", *(cell(scenario, one, other) for scenario in compared)]
            for one, other in pairs]
    return table(["ratio of p99"] + [f"`{scenario}`" for scenario in compared], rows)


def reserve():
    name = "day_with_reserve"
    head = [f"`{name}`", "p99, ms", "p99 with all in, ms", "backends in use", "decisions"]

    def cells(strategy):
        outcome = of[name, strategy]
        scaled = outcome["scaled"]
        in_use = (f"{scaled['in_use_mean']:.1f} "
                  f"({scaled['in_use_min']}–{scaled['in_use_max']})")
        return [f"`{strategy}`", f"{outcome['wait_p99_ms']:,.0f}",
                f"{scaled['all_in_wait_p99_ms']:,.0f}", in_use, str(scaled["decisions"])]

    return table(head, map(cells, strategies))


with open(docs) as file:
    text = file.read()
if mode == "--check":
    split = lambda line: [cell.strip(" `").replace(",", "") for cell in line.strip("|").split("|")]
    read = lambda part: [split(line) for line in part.split("\n") if line]
    was, now = read(block(text, "waits")), read(waits())
    names = lambda rows: (rows[0], [cells[0] for cells in rows])
    if names(was) != names(now):
        sys.exit(f"{docs} has other strategies or scenarios: run scripts/strategies-docs.sh")
    differ = [f"{old[0]}, {scenario}: {before} ms in the docs, {after} ms now"
              for old, new in zip(was[2:], now[2:])
              for scenario, before, after in list(zip(was[0], old, new))[1:]
              if abs(float(after) - float(before)) > 0.05 * float(before) + 1]
    if differ:
        sys.exit("\n".join(differ) + f"\n{docs} is stale: run scripts/strategies-docs.sh")
    print(f"{len(strategies) * len(scenarios)} figures hold")
else:
    blocks = [("waits", waits()), ("ratios", ratios()), ("shares", shares()),
              ("reserve", reserve())]
    for name, new in blocks:
        block(text, name)
        put = lambda found: found[1] + "\n" + new + "\n" + found[3]
        text = re.sub(BLOCK % name, put, text, flags=re.DOTALL)
    with open(docs, "w") as file:
        file.write(text)
PYTHON
