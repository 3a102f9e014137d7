#!/usr/bin/env bash
# Runs tests/proxy, the tests of the program on a real ring, on Debian's older kernels.
#
#   scripts/old-kernels.sh [KERNEL]... [-- GROUP...] [-- TEST_OPTION...]
#
# KERNEL is the beginning of a release, such as 6.1 or 6.12 (the default is both). The script
# fetches Debian's newest cloud kernel of that release, and boots it in qemu, which emulates the
# machine. The initramfs holds the stripped binaries and their libraries: no disk, no network but
# loopback. A GROUP is the beginning of the names of some tests (the default is each module by
# itself, such as half_close::). Groups run one after the other, so that a failure shows early. The
# arguments after the second -- go to the test program each time.
#
# The script shows the output of the tests as it comes. At the end it prints for each kernel how
# many tests passed, and why the others failed.
#
# PATIENCE     how much slower than a common machine an emulated one is: multiplies each wait of the
#              tests (default 12)
# SECONDS_MAX  ends a machine that has not finished by then (default 7200)
# KEEP         a directory for the fetched kernels and the build (default target/old-kernels)
# TESTS        a test program that is built already, in the deps of its target directory
# RESULTS      a directory for the output of the tests, one file for each kernel (default KEEP)
# INSTALL=1    installs what is missing, as root
#
# Exit codes: 0 when every test passed on every kernel; 1 when one failed, or a machine did not end;
# 2 when nothing could be run.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source-path=SCRIPTDIR source=../loadtest/lib.sh
source loadtest/lib.sh
help_if_asked "$@"

PATIENCE=${PATIENCE:-12}
SECONDS_MAX=${SECONDS_MAX:-7200}
KEEP=${KEEP:-${CARGO_TARGET_DIR:-target}/old-kernels}
RESULTS=${RESULTS:-$KEEP}
# Nothing ran, so the exit code is not that of a test.
die() {
    say "$(basename "$0"): $*"
    exit 2
}

# Kernel options: messages on the serial line, and a panic ends the machine.
BOOT='console=ttyS0 quiet panic=-1 rdinit=/init'

# The newest package of a kernel whose release begins with $1.
package_of_kernel() {
    local found
    found=$(apt-cache search --names-only "^linux-image-${1//./\\.}[.-].*cloud-amd64\$" |
        cut -d ' ' -f 1 | sort -V | tail -n 1)
    [[ -n $found ]] ||
        die "no package linux-image-$1*-cloud-amd64: run apt-get update, or name another kernel"
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

# Builds the tests; prints the path of the test program. Somewhat optimised: the emulated CPU takes
# half the time over it.
build_tests() {
    CARGO_PROFILE_DEV_OPT_LEVEL=1 cargo test --locked --no-run --test proxy \
        --target-dir "$KEEP/target" --message-format=json-render-diagnostics |
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

# $1: the test program; $2: the initramfs to write. Groups and options are in arrays.
make_initramfs() {
    local test=$1 image=$2 root=$WORK/root mahoraga
    rm -rf "$root"
    mkdir -p "$root"/{bin,dev,etc,proc,run,sys,tmp,root}
    # The tests start the program by the path that it was built at.
    mahoraga=$(dirname "$(dirname "$test")")/mahoraga
    put_program "$root" "$mahoraga" "$mahoraga"
    put_program "$root" "$test" /tests
    cp "$(command -v busybox)" "$root/bin/busybox"
    mkdir -p "$root/$PWD"
    printf '%s\n' 'root:x:0:0::/root:/bin/sh' 'daemon:x:1:1::/:/bin/false' >"$root/etc/passwd"
    printf '127.0.0.1 localhost\n::1 localhost\n' >"$root/etc/hosts"
    printf '%s\n' "${groups[@]}" >"$root/groups"
    cat >"$root/init" <<INIT
#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin HOME=/root TMPDIR=/tmp
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t tmpfs tmp /tmp
mkdir -p /dev/shm /dev/pts
ip link set lo up
# Cables between networks: some tests have other machines.
[ ! -e /veth.ko ] || insmod /veth.ko
ulimit -n 20000
# What a small machine lets all of TCP hold (tcp(7)) is less than some tests fill: then even those
# that move get no memory.
echo 300000 400000 500000 >/proc/sys/net/ipv4/tcp_mem
echo "kernel \$(uname -r)"
cd $PWD
export MAHORAGA_TEST_PATIENCE=$PATIENCE RUST_BACKTRACE=1
status=0
for group in \$(cat /groups); do
    /tests \$group ${options[*]@Q} || status=\$?
done
echo "exit code \$status"
poweroff -f
INIT
    chmod 755 "$root/init"
    (cd "$root" && find . | cpio -o -H newc --quiet | gzip -1) >"$image"
}

# Adds what is a module of the kernel in $1 to the initramfs $2; prints the path of the whole.
add_modules() {
    local dir=$1 image=$2 root=$WORK/modules module
    rm -rf "$root"
    mkdir -p "$root"
    module=$(find "$dir" -name 'veth.ko*' -print -quit)
    case $module in
    *.xz) xz -dc "$module" >"$root/veth.ko" ;;
    ?*) cp "$module" "$root/veth.ko" ;;
    esac
    # The kernel unpacks one archive after the other.
    cp "$image" "$image.whole"
    (cd "$root" && find . | cpio -o -H newc --quiet | gzip -1) >>"$image.whole"
    echo "$image.whole"
}

# Boots the kernel $1 with the initramfs $2; the tests' output goes to the standard output and to
# $3. Fails when a test failed, or when the machine ended before the tests.
run_on() {
    local kernel=$1 image=$2 output=$3 status=0
    timeout --foreground "$SECONDS_MAX" qemu-system-x86_64 \
        -accel tcg,thread=multi -cpu max -smp 2 -m 4096 \
        -nodefaults -no-user-config -display none -no-reboot -serial stdio \
        -kernel "$kernel" -initrd "$image" -append "$BOOT" </dev/null | stdbuf -oL tr -d '\r' |
        tee "$output" || status=$?
    case $status in
    0) ;;
    124) say "the machine did not end within $SECONDS_MAX s" ;;
    *) say "qemu failed with $status" ;;
    esac
    ((status == 0)) && grep -q '^exit code 0$' "$output"
}

# What became of the tests, by their output $1: a line of counts, then a line for each that failed,
# with its first panic, and for each that began to take long and did not end.
results() {
    awk '
        /^kernel / { kernel = $2 }
        /^test .* \.\.\. ok$/ { passed++; delete long[$2] }
        /^test .* \.\.\. FAILED$/ {
            failed[$2] = "no panic message was found"
            names[++count] = $2
            delete long[$2]
        }
        /^test .* has been running for over/ { long[$2] = 1 }
        /^---- .* stdout ----$/ { section = $2; wanted = 1 }
        wanted == 2 { failed[section] = $0; wanted = 0 }
        wanted == 1 && / panicked at / { wanted = 2 }
        /^(Kernel panic|.*Kernel panic - )/ { panic = $0 }
        END {
            printf "%s: %d passed, %d failed\n", kernel ? kernel : "no kernel booted", passed, count
            for (n = 1; n <= count; n++) printf "  %s: %s\n", names[n], failed[names[n]]
            for (name in long) printf "  %s: did not end\n", name
            if (panic) printf "  %s\n", panic
        }' "$1"
}

kernels=()
while (($#)) && [[ $1 != -- ]]; do
    kernels+=("$1")
    shift
done
(($# == 0)) || shift
groups=()
while (($#)) && [[ $1 != -- ]]; do
    groups+=("$1")
    shift
done
(($# == 0)) || shift
options=("$@")
((${#kernels[@]})) || kernels=(6.1 6.12)

need_tools qemu-system-x86_64 busybox cpio strip xz
if [[ ${INSTALL:-0} == 1 ]] && can_install; then apt-get update -q >/dev/null; fi
test=${TESTS:-$(build_tests)}
[[ -x $test ]] ||
    die 'cannot find or build the tests: see the output of cargo test --no-run --test proxy'
((${#groups[@]})) || mapfile -t groups < <("$test" --list | sed -n 's/::.*: test$/::/p' | sort -u)
make_initramfs "$test" "$WORK/initramfs"
mkdir -p "$RESULTS"
failed=()
reports=()
for release in "${kernels[@]}"; do
    package=$(package_of_kernel "$release")
    image=$(fetch_kernel "$package")
    say "booting $package"
    output=$RESULTS/output-$release.txt
    initramfs=$(add_modules "$KEEP/$package" "$WORK/initramfs")
    run_on "$image" "$initramfs" "$output" || failed+=("$release")
    reports+=("$output")
done
for output in "${reports[@]}"; do
    results "$output"
done
if ((${#failed[@]})); then
    say "$(basename "$0"): tests failed on ${failed[*]}"
    exit 1
fi
