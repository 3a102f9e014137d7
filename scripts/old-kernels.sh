#!/usr/bin/env bash
# Runs tests/proxy, the tests of the program on a real ring, on Debian's older kernels.
#
#   scripts/old-kernels.sh [KERNEL]... [-- TEST_ARGUMENT...]
#
# KERNEL is the beginning of a release, such as 6.1 or 6.12 (the default is both). The newest cloud
# kernel of Debian that begins so is fetched and booted by qemu, emulated, with an initramfs that
# holds the stripped binaries and their libraries: no disk, no network but loopback. What follows --
# goes to the test program, such as the names of tests.
#
# PATIENCE   multiplies every wait of the tests (default 8: an emulated CPU is slow)
# SECONDS_MAX  ends a machine that has not finished by then (default 3600)
# KEEP       a directory for the fetched kernels (default target/old-kernels)
# INSTALL=1  installs what is missing, as root
#
# Exit codes: 0 when every test passed on every kernel; 1 when one failed, or a machine did not end.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source-path=SCRIPTDIR source=../loadtest/lib.sh
source loadtest/lib.sh
help_if_asked "$@"

PATIENCE=${PATIENCE:-8}
SECONDS_MAX=${SECONDS_MAX:-3600}
KEEP=${KEEP:-${CARGO_TARGET_DIR:-target}/old-kernels}
# Kernel options: messages on the serial line, and a panic ends the machine.
BOOT='console=ttyS0 quiet panic=-1 rdinit=/init'

# The newest package of a kernel whose release begins with $1.
package_of_kernel() {
    local found
    found=$(apt-cache search --names-only "^linux-image-${1//./\\.}[.-].*cloud-amd64\$" |
        cut -d ' ' -f 1 | sort -V | tail -n 1)
    [[ -n $found ]] || die "no package linux-image-$1*-cloud-amd64: run apt-get update, or name another kernel"
    echo "$found"
}

# Fetches a kernel once; prints the path of its image.
fetch_kernel() {
    local package=$1 dir=$KEEP/$1
    if [[ ! -d $dir ]]; then
        say "fetching $package"
        mkdir -p "$WORK/deb"
        (cd "$WORK/deb" && apt-get download -q "$package" >&2 2>"$WORK/apt.log") ||
            die "cannot fetch $package: see the output of apt-get download $package"
        mkdir -p "$KEEP"
        dpkg-deb -x "$WORK"/deb/"$package"_*.deb "$dir.new"
        mv "$dir.new" "$dir"
    fi
    ls "$dir"/boot/vmlinuz-*
}

# Builds the tests; prints the path of the test program.
build_tests() {
    cargo test --locked --no-run --test proxy --message-format=json-render-diagnostics |
        grep -o '"executable":"[^"]*/proxy-[^"]*"' | tail -n 1 | cut -d '"' -f 4
}

# Puts a program, stripped, and its libraries where they are here.
put_program() {
    local root=$1 from=$2 to=$3 library
    mkdir -p "$root/$(dirname "$to")"
    strip -o "$root/$to" "$from"
    chmod 755 "$root/$to"
    ldd "$from" | grep -o '/[^ ]*' | while read -r library; do
        mkdir -p "$root/$(dirname "$library")"
        cp -L "$library" "$root/$library"
    done
}

# $1: the test program; $2: the initramfs to write; the rest: arguments of the test program.
make_initramfs() {
    local test=$1 image=$2 root=$WORK/root mahoraga
    shift 2
    rm -rf "$root"
    mkdir -p "$root"/{bin,dev,etc,proc,run,sys,tmp,root}
    # The tests start the program by the path that it was built at.
    mahoraga=$(dirname "$(dirname "$test")")/mahoraga
    put_program "$root" "$mahoraga" "$mahoraga"
    put_program "$root" "$test" /tests
    cp "$(command -v busybox)" "$root/bin/busybox"
    mkdir -p "$root/$PWD"
    echo 'root:x:0:0:root:/root:/bin/sh' >"$root/etc/passwd"
    printf '127.0.0.1 localhost\n::1 localhost\n' >"$root/etc/hosts"
    printf '%q ' "$@" >"$root/arguments"
    cat >"$root/init" <<INIT
#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin HOME=/root TMPDIR=/tmp
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev; mount -t tmpfs tmp /tmp
mkdir -p /dev/shm /dev/pts
ip link set lo up
ulimit -n 20000
echo "kernel \$(uname -r)"
cd $PWD
export MAHORAGA_TEST_PATIENCE=$PATIENCE RUST_BACKTRACE=1
eval /tests \$(cat /arguments)
echo "exit code \$?"
poweroff -f
INIT
    chmod 755 "$root/init"
    (cd "$root" && find . | cpio -o -H newc --quiet | gzip -1) >"$image"
}

# Boots one kernel; its tests' output goes to the standard output. Fails when a test failed.
run_on() {
    local kernel=$1 image=$2 output=$WORK/output-$RANDOM status=0
    timeout "$SECONDS_MAX" qemu-system-x86_64 -accel tcg,thread=multi -cpu max -smp 2 -m 4096 \
        -nodefaults -no-user-config -display none -no-reboot -serial stdio \
        -kernel "$kernel" -initrd "$image" -append "$BOOT" </dev/null | stdbuf -oL tr -d '\r' |
        tee "$output" || status=$?
    ((status == 0)) || say "the machine did not end within $SECONDS_MAX s"
    grep -q '^exit code 0$' "$output"
}

kernels=()
while (($#)) && [[ $1 != -- ]]; do
    kernels+=("$1")
    shift
done
(($# == 0)) || shift
((${#kernels[@]})) || kernels=(6.1 6.12)

need_tools qemu-system-x86_64 busybox cpio strip
if [[ ${INSTALL:-0} == 1 ]] && can_install; then apt-get update -q >/dev/null; fi
test=$(build_tests)
[[ -x $test ]] || die 'cannot build the tests: see the output of cargo test --no-run --test proxy'
make_initramfs "$test" "$WORK/initramfs" "$@"
failed=()
for release in "${kernels[@]}"; do
    package=$(package_of_kernel "$release")
    image=$(fetch_kernel "$package")
    say "booting $package"
    run_on "$image" "$WORK/initramfs" || failed+=("$release")
done
((${#failed[@]} == 0)) || die "tests failed on ${failed[*]}"
say "all tests passed on ${kernels[*]}"
