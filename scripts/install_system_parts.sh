#!/usr/bin/env bash
# Installs the Debian packages that `make test-system` needs and that are not there yet.
set -euo pipefail

parts=(            # command:package
  promtool:prometheus
  node:nodejs
  npm:npm
)

missing=()
for part in "${parts[@]}"; do
  command -v "${part%%:*}" >/dev/null || missing+=("${part##*:}")
done
if [ ${#missing[@]} -eq 0 ]; then
  exit 0
fi

as_root=()
if [ "$(id -u)" -ne 0 ]; then
  as_root=(sudo)
fi
"${as_root[@]}" apt-get update --quiet
"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install --quiet --yes --no-install-recommends "${missing[@]}"
