#!/usr/bin/env bash
# What `make demo` shows: a sample from a model that comes with the repository, 90 seconds of
# training on the repository's own text, a sample of that, two Sudokus, one of which is beyond the
# model that comes with it, and a maze.
set -euo pipefail
cd "$(dirname "$0")/.."
deq=build/release/cli/deq
folder=build/demo
text=$folder/text.txt
run=$folder/run

mkdir -p "$folder"
rm -rf "$run"
# Sources and documents, shuffled by a fixed order so that the held-out end is of every kind.
find deq cli tests docs README.md -type f \( -name '*.h' -o -name '*.cpp' -o -name '*.md' \) |
  while read -r file; do printf '%s %s\n' "$(printf %s "$file" | cksum | cut -d' ' -f1)" "$file"; done |
  sort | cut -d' ' -f2 | xargs cat > "$text"

echo "== 0. A sample from models/shakespeare, which is here already: one equilibrium per character"
"$deq" generate models/shakespeare --prompt "ROMEO:" --tokens 300 --temperature 0.8 --seed 1
echo
echo "== 1. The text: $(wc -c < "$text") bytes of this repository"
"$deq" data info "$text" --task bytes
echo
echo "== 2. Training for about 90 seconds: runs/demo.toml"
"$deq" train "$run" --data "$text" --config runs/demo.toml
echo
echo "== 3. Its loss on the test split, which it has not seen, and what leaks from the future"
"$deq" eval "$run" --check-leak
echo
echo "== 4. A sample: one equilibrium per byte, earlier ones kept"
"$deq" generate "$run" --prompt "// The " --tokens 240 --temperature 0.8 --seed 1
echo
echo "== 5. What the run did, and its solves, on a page to open in a browser"
"$deq" report "$run"
echo
echo "== 6. Sudoku, by models/sudoku (38 kB): the equilibrium is the answer; what is none is not trusted"
"$deq" answer models/sudoku models/sudoku/boards.txt --pretty || [[ $? == 3 ]]
echo "== 7. A maze of size 25, by models/mazes (99 kB), which was trained on size 9"
"$deq" answer models/mazes models/mazes/mazes.txt --pretty || [[ $? == 3 ]]
cat <<END

The run is in $run: config.toml, metrics.jsonl, vocab.txt, best.safetensors, last.safetensors.
Try next:
  $deq generate models/shakespeare --prompt "JULIET:" --tokens 1000 --temperature 0.7
  $deq generate $run --prompt "#include" --tokens 400 --top-p 0.9
  $deq eval $run --solver broyden --solver-scope sample --rel-tol 0.1 --check-leak
  echo 701009200005300408000080010010006000020010000000400007003000002960000040052000031 | $deq answer models/sudoku --show
  $deq train $run --resume --steps 2000 --minutes 10
  $deq train my-run --data your.txt --task characters --config runs/demo.toml --minutes 10
END
