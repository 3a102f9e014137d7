#!/usr/bin/env bash
# Clients that read some of a fast stream and then nothing more: prints what waits for each of them
# in the kernel's socket buffers, how many pages of memory TCP has in all, and how fast a client is
# that reads on.
#
#   loadtest/stalled.sh
#
# By environment:
#   READERS=160         how many clients; 1000 take more than the kernel allows, some are closed
#   READ=4              MiB that each reads
#   MAHORAGA=PATH       the binary (default: what `cargo build --release` makes now)
#   INSTALL=1           as root, install missing tools by apt-get
# Exits 1 when a reader gets nothing for 5 s, or one that reads on is closed.

set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

help_if_asked "$@"
need_tools python3 ss
find_mahoraga
need_descriptors $((4 * ${READERS:-160} + 500))
free_port
backend=$PORT
start any flood python3 "$LOADTEST/stalled_readers.py" flood "$backend"
wait_port "$backend" flood
start_mahoraga any "${WORKERS:-2}" "$backend"
python3 "$LOADTEST/stalled_readers.py" read "$PORT" "$backend" \
    --readers "${READERS:-160}" --mib "${READ:-4}"
