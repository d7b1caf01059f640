#!/bin/sh
# Checks every combination of features of every crate, each crate alone, so that none of them builds only because
# another one asks for more. Warnings are errors.
#
#   scripts/features.sh             all crates
#   scripts/features.sh CRATE...    only these
set -eu
cd "$(dirname "$0")/.."

cargo=${CARGO:-cargo}
node=${NODE:-node}

# Prints a line for each combination: the crate, and its features separated by commas.
combinations() {
    "$cargo" metadata --locked --no-deps --format-version 1 | "$node" -e '
        const { packages } = JSON.parse(require("node:fs").readFileSync(0, "utf8"));
        const wanted = process.argv.slice(1);
        for (const { name, features } of packages) {
            if (wanted.length > 0 && !wanted.includes(name)) continue;
            const names = Object.keys(features).filter((feature) => feature !== "default");
            for (let bits = 0; bits < 1 << names.length; bits += 1) {
                console.log(name, names.filter((_, bit) => bits & (1 << bit)).join(","));
            }
        }
    ' "$@"
}

combinations "$@" | while read -r crate features; do
    printf '%s: %s\n' "$crate" "${features:-no features}"
    "$cargo" clippy --quiet --locked --package "$crate" --no-default-features --features "$features" \
        -- -D warnings </dev/null
done
