#!/bin/sh
# Installs the Socket.IO client by its lock file and copies what the gateway embeds into gateway/client/dist.
set -eu
cd "$(dirname "$0")/../gateway/client"

# Nothing to do while dist is newer than the lock file: `make run` calls this each time.
if [ -f dist/socket.io.js ] && [ dist/socket.io.js -nt package-lock.json ]; then
    exit 0
fi

npm ci --no-audit --no-fund --loglevel=error
mkdir -p dist
for name in socket.io socket.io.min socket.io.esm.min socket.io.msgpack.min; do
    for file in "$name.js" "$name.js.map"; do
        # The package has no map for some builds in some versions; a missing script is an error.
        if [ -f "node_modules/socket.io-client/dist/$file" ] || [ "${file##*.}" = js ]; then
            cp "node_modules/socket.io-client/dist/$file" "dist/$file"
        fi
    done
done
echo "client: $(ls dist | wc -l | tr -d ' ') files in gateway/client/dist"
