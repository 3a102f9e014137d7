#!/usr/bin/env bash
# The figures of docs/protection.md, from `mahoraga simulate --scenario abuse`: the tables between
# its `<!-- simulate: ... -->` and `<!-- end -->`.
#
#   scripts/protection-docs.sh            writes them again
#   scripts/protection-docs.sh --check    fails when a figure differs by more than 5%
#
# A seed has the same figures wherever the C library's logarithms end in the same bits; --check
# leaves room for those that do not. By environment:
#   MAHORAGA=PATH   the binary (default: what `cargo build --release` makes now)

set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=../loadtest/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../loadtest/lib.sh"
begin_figures "$@"

"$MAHORAGA" simulate --scenario abuse --json >"$WORK/abuse.json"
python3 - "$mode" "$WORK/abuse.json" "$REPO/docs/protection.md" <<'PYTHON'
import json
import re
import sys

mode, outcomes, docs = sys.argv[1:]
BLOCK = r"(<!-- simulate: abuse -->\n)(.*?)(<!-- end -->)"
with open(outcomes) as file:
    outcomes = json.load(file)
with open(docs) as file:
    text = file.read()


def row(cells):
    return "| " + " | ".join(cells) + " |\n"


def cell(crowd, seconds):
    # As the program prints it.
    if crowd["abuse"] == "connections":
        return f"{crowd['open_max']} open"
    if crowd["abuse"] == "rate":
        return f"{(crowd['connections'] - crowd['refused']) / seconds:.0f}/s"
    if crowd["clients_refused"] == 0:
        return "0"
    return f"{100 * crowd['clients_refused'] / crowd['clients_seen']:.1f}%"


def line(outcome):
    seconds = outcome["seconds"]
    return [outcome["limits"], *(cell(crowd, seconds) for crowd in outcome["crowds"])]


head = ["limits", *(f"`{crowd['name']}`" for crowd in outcomes[0]["crowds"])]
table = row(head) + row(["---"] * len(head)) + "".join(row(line(o)) for o in outcomes)
found = re.search(BLOCK, text, re.DOTALL)
if not found:
    sys.exit(f"{docs} has no block `simulate: abuse`")
if mode == "write":
    text = re.sub(BLOCK, lambda its: its[1] + "\n" + table + "\n" + its[3], text, flags=re.DOTALL)
    with open(docs, "w") as file:
        file.write(text)
    sys.exit()
split = lambda line: [cell.strip() for cell in line.strip("|").split("|")]
read = lambda part: [split(line) for line in part.split("\n") if line]
was, now = read(found[2]), read(table)
if was[0] != now[0] or [cells[0] for cells in was] != [cells[0] for cells in now]:
    sys.exit(f"{docs} has other limits or crowds: run scripts/protection-docs.sh")
figure = lambda cell: float(re.sub(r"[^0-9.]", "", cell))
pairs = [(old[0], head[nth], old[nth], new[nth])
         for old, new in zip(was[2:], now[2:]) for nth in range(1, len(head))]
differ = [f"{limits}, {crowd}: {before} in the docs, {after} now"
          for limits, crowd, before, after in pairs
          if abs(figure(after) - figure(before)) > 0.05 * figure(before) + 1]
if differ:
    sys.exit("\n".join(differ) + f"\n{docs} is stale: run scripts/protection-docs.sh")
print(f"{len(pairs)} figures hold")
PYTHON
