#!/usr/bin/env bash
# The style of every tracked source: clang-format, and who includes whom.
set -euo pipefail
cd "$(dirname "$0")/.."

mapfile -t files < <(git ls-files '*.h' '*.cpp')
echo "style: clang-format over ${#files[@]} files"
clang-format --dry-run -Werror "${files[@]}" || {
  echo "error: not formatted as .clang-format says; run \`make format\`" >&2
  exit 1
}
python3 scripts/check_includes.py
