#!/bin/bash
# Install what a checkout needs on Debian 12: system packages, then the locked Python environment in .venv.
# Run as root (or with sudo for apt). Idempotent.
set -euo pipefail
cd "$(dirname "$0")/.."

missing=()
while read -r package; do
  dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
done < <(grep -v '^#' dev/packages.txt)
if ((${#missing[@]})); then
  echo "Installing system packages: ${missing[*]}"
  export DEBIAN_FRONTEND=noninteractive
  sudo=$( ((EUID)) && echo sudo || true)
  $sudo apt-get update -qq
  # policy-rc.d would not matter: without systemd nothing is started, with it libvirtd is wanted anyway.
  $sudo apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
fi

[[ -x .venv/bin/python ]] || python3 -m venv .venv
.venv/bin/python -m pip install -q --disable-pip-version-check "$(grep -oE '^uv==[^ ]+' requirements.lock)"
.venv/bin/uv pip sync -q --python .venv/bin/python --require-hashes requirements.lock
.venv/bin/uv pip install -q --python .venv/bin/python --no-deps --no-build-isolation -e .
