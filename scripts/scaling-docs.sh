#!/usr/bin/env bash
# The figures of docs/scaling.md: what stands between `<!-- run: COMMAND -->` and `<!-- end -->` is
# what COMMAND prints. Each is `mahoraga plan` or `mahoraga simulate`, and takes seconds.
#
#   scripts/scaling-docs.sh            writes them again
#   scripts/scaling-docs.sh --check    fails when a word differs, or a figure by more than 5%
#
# By environment:
#   MAHORAGA=PATH   the binary (default: what `cargo build --release` makes now)

set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=../loadtest/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../loadtest/lib.sh"
begin_figures "$@"

python3 - "$mode" "$MAHORAGA" "$REPO/docs/scaling.md" <<'PYTHON'
import re
import subprocess
import sys

mode, mahoraga, docs = sys.argv[1:]
BLOCK = r"(<!-- run: mahoraga (.*?) -->\n)(.*?)(<!-- end -->)"
NUMBER = r"\d[\d,]*(?:\.\d+)?"
with open(docs) as file:
    text = file.read()


def run(arguments):
    command = [mahoraga, *arguments.split()]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def shape(text):
    return re.sub(r"\s+", " ", re.sub(NUMBER, "N", text)).strip()


def figures(text):
    return [float(number.replace(",", "")) for number in re.findall(NUMBER, text)]


blocks = re.findall(BLOCK, text, re.DOTALL)
if not blocks:
    sys.exit(f"{docs} has no block `run: mahoraga ...`")
outputs = {arguments: run(arguments) for _, arguments, _, _ in blocks}
if mode == "write":
    put = lambda its: f"{its[1]}\n```\n{outputs[its[2]].rstrip()}\n```\n\n{its[4]}"
    with open(docs, "w") as file:
        file.write(re.sub(BLOCK, put, text, flags=re.DOTALL))
    sys.exit()
count = 0
for _, arguments, was, _ in blocks:
    was, now = was.replace("```", ""), outputs[arguments]
    pairs = list(zip(figures(was), figures(now)))
    differ = [f"{old} in the docs, {new} now" for old, new in pairs
              if abs(new - old) > 0.05 * old + 1]
    if shape(was) != shape(now):
        differ.append(f"other words now:\n{now}")
    if differ:
        differ.insert(0, f"{docs} is stale for mahoraga {arguments}: run scripts/scaling-docs.sh")
        sys.exit("\n".join(differ))
    count += len(pairs)
print(f"{count} figures hold")
PYTHON
