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
  # Every node has an Open vSwitch of its own, and a cluster its OVN: the host's shall not start meanwhile.
  policy=/usr/sbin/policy-rc.d
  if [[ ! -e $policy ]]; then
    trap '$sudo rm -f "$policy"' EXIT
    printf '#!/bin/sh\ncase $1 in openvswitch* | ovs* | ovn*) exit 101 ;; esac\n' | $sudo tee "$policy" >/dev/null
    $sudo chmod 755 "$policy"
  fi
  $sudo apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
fi

[[ -x .venv/bin/python ]] || python3 -m venv .venv
.venv/bin/python -m pip install -q --disable-pip-version-check "$(grep -oE '^uv==[^ ]+' requirements.lock)"
.venv/bin/uv pip sync -q --python .venv/bin/python --require-hashes requirements.lock
.venv/bin/uv pip install -q --python .venv/bin/python --no-deps --no-build-isolation -e .
