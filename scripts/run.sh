#!/bin/sh
# Builds a release and runs one node with the demo. All arguments go to the node.
set -eu
cd "$(dirname "$0")/.."

"${CARGO:-cargo}" build --release --locked --bin carillon

# Where the page will be: the flag, the environment, the default, in the node's own order.
listen=${CARILLON_LISTEN:-127.0.0.1:3000}
previous=
for argument in "$@"; do
    case $argument in
        --listen=*) listen=${argument#--listen=} ;;
    esac
    if [ "$previous" = --listen ]; then listen=$argument; fi
    previous=$argument
done
echo
echo "The chat page: http://$listen/   (Ctrl-C stops the node)"
echo

# cargo replaces itself with the node, so signals reach it.
exec "${CARGO:-cargo}" run --quiet --release --locked --bin carillon -- --demo "$@"
