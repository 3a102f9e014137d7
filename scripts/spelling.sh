#!/usr/bin/env bash
# Looks for misspelled words in code, documents and file names, by typos
# (https://github.com/crate-ci/typos); typos.toml has the exceptions.
#
#   scripts/spelling.sh [TYPOS_ARGUMENT...]
#
# TYPOS=PATH   the program (default: the one in PATH, else INSTALL=1 fetches the wheel from PyPI)
#
# Exit codes: 0 when nothing is misspelled or typos is not here; 2 when something is; 1 when typos
# cannot be fetched.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source-path=SCRIPTDIR source=../loadtest/lib.sh
source loadtest/lib.sh
help_if_asked "$@"

VERSION=1.52.0
TYPOS=${TYPOS:-$(command -v typos || true)}
if [[ -z $TYPOS && ${INSTALL:-0} == 1 ]]; then
    need_tools python3
    python3 -m pip --version >/dev/null 2>&1 || install_tools python3-pip ||
        die 'cannot install python3-pip: see the lines above'
    PIP_ROOT_USER_ACTION=ignore python3 -m pip install --quiet --no-deps \
        --target "$WORK/typos" "typos==$VERSION" >&2 ||
        die "cannot fetch typos $VERSION from PyPI: set TYPOS to the path of one"
    TYPOS=$WORK/typos/bin/typos
fi
if [[ -z $TYPOS ]]; then
    say 'SKIPPED: typos is not installed, so nothing was spell-checked (INSTALL=1 fetches it)'
    exit 0
fi
"$TYPOS" "$@"
