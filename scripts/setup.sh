#!/usr/bin/env bash
# Installs what the build needs on Debian 12 or 13, by the same packages, and only what is missing.
# DEQ_SKIP_SETUP=1 skips it. With --all also what optional parts are built with, as `make test` wants.
set -euo pipefail

packages=(
  g++ cmake ninja-build ccache           # build
  clang-format python3                   # style and include-order checks
  libtorch-dev libopenblas0-openmp       # tensors; the BLAS whose threads agree with LibTorch's
  libgloo-dev                            # training on several processes
  libfmt-dev nlohmann-json3-dev libhwy-dev libssl-dev
  libcli11-dev libcurl4-openssl-dev zlib1g-dev ca-certificates  # the command
  libgtest-dev libbenchmark-dev          # tests, benchmarks
)
optional=(
  python3-torch pybind11-dev libpython3-dev  # import deq
)
[[ ${1:-} != --all ]] || packages+=("${optional[@]}")

fail() {
  echo "error: $1" >&2
  exit 1
}

[[ ${DEQ_SKIP_SETUP:-} == 1 ]] && exit 0
command -v dpkg-query >/dev/null && [[ $(. /etc/os-release && echo "$ID") == debian ]] ||
  fail "setup installs Debian's packages and this is not Debian; install the libraries that CMakeLists.txt finds, then set DEQ_SKIP_SETUP=1"

installed=$(dpkg-query -W -f '${Package} ${db:Status-Status}\n' "${packages[@]}" 2>/dev/null || true)
missing=()
for package in "${packages[@]}"; do
  grep -qxF "$package installed" <<<"$installed" || missing+=("$package")
done
if ((${#missing[@]} == 0)); then
  echo "setup: nothing is missing"
  exit 0
fi

as_root=()
if ((EUID != 0)); then
  command -v sudo >/dev/null || fail "missing ${missing[*]}; run scripts/setup.sh as root, or install sudo"
  sudo -n true 2>/dev/null || [[ -t 0 ]] ||
    fail "missing ${missing[*]}; sudo asks for a password and there is no terminal: run scripts/setup.sh as root"
  as_root=(sudo)
fi

echo "setup: installing ${missing[*]}"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
apt() {
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -q -y "$@" >"$log" 2>&1 </dev/null || {
    cat "$log" >&2
    fail "apt-get $1 failed, see above"
  }
}
apt update
apt install --no-install-recommends "${missing[@]}"
echo "setup: done"
