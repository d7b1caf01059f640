#!/bin/sh
# Makes sure that what the build or the tests need is there. On Debian and Ubuntu missing packages are installed;
# elsewhere the script says what to install and stops. A complete machine is left alone.
#
#   scripts/setup.sh build    for `make run`
#   scripts/setup.sh test     for `make test`
set -eu
cd "$(dirname "$0")/.."

purpose=${1:-test}
rust_min=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
node_min=20.11

say() { printf 'setup: %s\n' "$*"; }
fail() { printf 'setup: %s\n' "$*" >&2; exit 1; }
has() { command -v "$1" >/dev/null 2>&1; }

# at_least HAVE WANT: compares major and minor.
at_least() {
    have_major=${1%%.*}; have_rest=${1#*.}; have_minor=${have_rest%%.*}
    want_major=${2%%.*}; want_rest=${2#*.}; want_minor=${want_rest%%.*}
    [ "$have_major" -gt "$want_major" ] ||
        { [ "$have_major" -eq "$want_major" ] && [ "$have_minor" -ge "$want_minor" ]; }
}

has cargo || fail "cargo not found. Install Rust $rust_min or newer: https://rustup.rs"
rust=$(rustc --version | cut -d' ' -f2)
at_least "$rust" "$rust_min" ||
    fail "Rust $rust is too old, $rust_min or newer is needed: rustup update stable"

has node || fail "node not found. Install Node.js $node_min or newer: https://nodejs.org"
node=$(node --version | tr -d v)
at_least "$node" "$node_min" || fail "Node.js $node is too old, $node_min or newer is needed"
has npm || fail "npm not found. It comes with Node.js; on Debian: apt-get install npm"

if [ "$purpose" = test ]; then
    for component in fmt clippy; do
        if ! cargo "$component" --version >/dev/null 2>&1; then
            package=$component
            if [ "$component" = fmt ]; then package=rustfmt; fi
            has rustup || fail "cargo $component not found. Install the Rust component $package"
            say "adding the Rust component $package"
            rustup component add "$package"
        fi
    done
fi

# What each missing command is called as a package: Debian, and words for everybody else.
packages=
words=
need() {
    packages="$packages $1"
    words="$words
  - $2"
}

has cc || need build-essential "a C compiler (cc) and linker"
if [ "$purpose" = test ]; then
    has redis-server || need redis-server "Redis 6.2 or newer, or Valkey, as redis-server"
    has haproxy || [ -x /usr/sbin/haproxy ] || need haproxy "HAProxy 2.4 or newer, as haproxy"
    has chromium || has chromium-browser || has google-chrome-stable || has google-chrome ||
        [ -n "${CHROMIUM:-}" ] ||
        need chromium "Chromium or Chrome (or set CHROMIUM to its path)"
fi

if [ -z "$packages" ]; then
    say "Rust $rust, Node.js $node, nothing is missing"
    exit 0
fi

if ! has apt-get; then
    fail "please install, with what your system uses:$words"
fi

as_root=
if [ "$(id -u)" -ne 0 ]; then
    has sudo || fail "please install as root: apt-get install$packages"
    as_root=sudo
fi

# Ubuntu has Chromium as a snap, which its package chromium-browser installs.
if [ "$(. /etc/os-release && echo "$ID")" = ubuntu ]; then
    packages=$(printf '%s' "$packages" | sed 's/chromium/chromium-browser/')
fi

say "installing:$packages"
$as_root apt-get update -q
# shellcheck disable=SC2086 # one word per package
$as_root env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $packages
say "Rust $rust, Node.js $node, done"
