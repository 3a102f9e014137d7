#!/usr/bin/env bash
# The dashboard in headless Chromium: every view under load and every control on a real balancer,
# no error on the console, no request to another host, and what axe-core finds. Also compares the
# embedded uPlot with the package of npm.
#
#   scripts/page.sh
#
# Takes half a minute. Pictures of each view are in target/page (light, dark, phone). By
# environment:
#   MAHORAGA=PATH      the binary (default: what `cargo build --release` makes now)
#   SCREENSHOTS=PATH   another directory for the pictures
#   INSTALL=1          as root, install missing tools by apt-get
# Exits 1 when something is wrong. What can't be fetched from npm is named as not checked.

set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=../loadtest/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../loadtest/lib.sh"

help_if_asked "$@"
need_tools chromium chromedriver curl python3
find_mahoraga
SCREENSHOTS=${SCREENSHOTS:-${CARGO_TARGET_DIR:-$REPO/target}/page}

# fetch_package NAME VERSION SHA512: unpacks a package of npm into $WORK/NAME, if it is that one.
fetch_package() {
    local name=$1 version=$2 sum=$3 file=$WORK/$1-$2.tgz
    if command -v npm >/dev/null; then
        (cd "$WORK" && npm pack --silent "$name@$version" >/dev/null 2>&1) || return 1
    else
        curl -fsSL --max-time 60 -o "$file" \
            "https://registry.npmjs.org/$name/-/$name-$version.tgz" || return 1
    fi
    [[ $(sha512sum <"$file") == "$sum "* ]] || die "$name $version of npm has another checksum"
    mkdir "$WORK/$name"
    tar -xzf "$file" -C "$WORK/$name" --strip-components=1
}

# The files that the program embeds are those of the package, byte for byte.
check_uplot() {
    local file room=$REPO/src/admin/page/uplot
    fetch_package uplot 1.6.32 "$UPLOT_SUM" || {
        echo 'NOT CHECKED: uPlot (npm does not give it)'
        return
    }
    for file in dist/uPlot.iife.min.js dist/uPlot.min.css LICENSE; do
        cmp "$WORK/uplot/$file" "$room/${file##*/}" || die "$room/${file##*/} is not that of npm"
    done
}

UPLOT_SUM=2883159c6ebccefbb95d751b0b82d010f9e1c0ec41b8bc96d401eda66e882935
UPLOT_SUM+=c89a46cb824332fa369b8cb8122cc6ac36e186cd09bf7a9ded3a4c93c6989023
AXE_SUM=1477dafa598d8d065f273d6af302aa203c02e83131707b7fa648cd41bd3d6b73
AXE_SUM+=4f8c22a0dab86ee6a6f64b8afbe804b214d36db85a2826965edfb3a0b9d546b5

check_uplot
AXE=-
if fetch_package axe-core 4.14.1 "$AXE_SUM"; then
    AXE=$WORK/axe-core/axe.min.js
else
    echo 'NOT CHECKED: accessibility (npm does not give axe-core)'
fi
TMPDIR=$WORK python3 "$REPO/tests/page/test_page.py" "$MAHORAGA" "$AXE" "$SCREENSHOTS"
echo "pictures: $SCREENSHOTS"
