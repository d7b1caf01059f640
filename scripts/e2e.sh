#!/bin/sh
# Runs the Node.js tests from e2e/: first those that compare parsers, then those with real nodes.
set -eu
cd "$(dirname "$0")/../e2e"

# Debian keeps haproxy where only root looks.
PATH="$PATH:/usr/sbin"
export PATH

if [ -z "${CHROMIUM:-}" ]; then
    for name in chromium chromium-browser google-chrome-stable google-chrome; do
        if command -v "$name" >/dev/null 2>&1; then
            CHROMIUM=$(command -v "$name")
            break
        fi
    done
fi
export CHROMIUM="${CHROMIUM:-}"

# One file at a time: each starts several servers, and a busy machine makes deadlines lie.
for folder in differential tests; do
    set -- "$folder"/*.test.mjs
    if [ ! -f "$1" ]; then
        echo "e2e/$folder has no tests" >&2
        exit 1
    fi
    "${NODE:-node}" --test --test-concurrency=1 "$@"
done
