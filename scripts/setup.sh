#!/usr/bin/env bash
# Installs what the build needs on Debian 12 or 13, by the same packages, and only what is missing.
# DEQ_SKIP_SETUP=1 skips it. Without what only an optional part is built with it goes on; with --all
# it looks for all of that, as `make test` wants.
set -euo pipefail

packages=(
  g++ cmake ninja-build ccache           # build
  clang-format python3                   # style and include-order checks
  libtorch-dev libopenblas0-openmp       # tensors; the BLAS whose threads agree with LibTorch's
  libfmt-dev nlohmann-json3-dev libhwy-dev libssl-dev
  libcli11-dev libcurl4-openssl-dev zlib1g-dev ca-certificates  # the command
  libgtest-dev libbenchmark-dev          # tests, benchmarks
)
optional=(libgloo-dev)                   # training on several processes
[[ ${1:-} != --all ]] || optional+=(python3-torch pybind11-dev libpython3-dev)  # import deq

fail() {
  echo "error: $1" >&2
  exit 1
}

[[ ${DEQ_SKIP_SETUP:-} == 1 ]] && exit 0
command -v dpkg-query >/dev/null && [[ $(. /etc/os-release && echo "$ID") == debian ]] ||
  fail "setup installs Debian's packages and this is not Debian; install the libraries that CMakeLists.txt finds, then set DEQ_SKIP_SETUP=1"

installed=$(dpkg-query -W -f '${Package} ${db:Status-Status}\n' "${packages[@]}" "${optional[@]}" 2>/dev/null || true)
missing_of() {
  for package in "$@"; do
    grep -qxF "$package installed" <<<"$installed" || echo "$package"
  done
}
mapfile -t missing < <(missing_of "${packages[@]}")
mapfile -t unneeded < <(missing_of "${optional[@]}")
if ((${#missing[@]} + ${#unneeded[@]} == 0)); then
  echo "setup: nothing is missing"
  exit 0
fi
without() {
  echo "setup: without ${unneeded[*]} ($1): the parts that need them are left out"
  exit 0
}

as_root=()
if ((EUID != 0)); then
  can=yes
  command -v sudo >/dev/null || can="run scripts/setup.sh as root, or install sudo"
  [[ $can != yes ]] || sudo -n true 2>/dev/null || [[ -t 0 ]] ||
    can="sudo asks for a password and there is no terminal: run scripts/setup.sh as root"
  [[ $can == yes ]] || ((${#missing[@]} > 0)) || without "$can"
  [[ $can == yes ]] || fail "missing ${missing[*]}; $can"
  as_root=(sudo)
fi

log=$(mktemp)
trap 'rm -f "$log"' EXIT
apt() {
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -q -y "$@" >"$log" 2>&1 </dev/null
}
need() {
  apt "$@" || {
    cat "$log" >&2
    fail "apt-get $1 failed, see above"
  }
}
if ((${#missing[@]} > 0)); then
  echo "setup: installing ${missing[*]}"
  need update
  need install --no-install-recommends "${missing[@]}"
fi
if ((${#unneeded[@]} > 0)); then
  echo "setup: installing ${unneeded[*]}"
  ((${#missing[@]} > 0)) || apt update || without "apt-get update failed"
  apt install --no-install-recommends "${unneeded[@]}" || without "apt-get install failed"
fi
echo "setup: done"
