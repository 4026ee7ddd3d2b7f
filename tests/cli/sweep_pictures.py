#!/usr/bin/env python3
"""Runs the script of a sweep's page on canvases that only count, and moves a slider.

usage: sweep_pictures.py DEQ

Exits 77, which is skipped, where there is no Node.js.
"""
import json
import pathlib
import shutil
import subprocess
import sys
import tempfile

TRAIN = ("--task mazes --task-size 5 --task-test-sizes 7 --task-valid 8 --task-test 9 --steps 3 --cell conv "
         "--cell-dimensions 2 --cell-width 8 --threads 1 --solver picard --max-steps 5 --eval-every 3").split()
SWEEP = "--limits 2,9 --starts 1 --paths 0 --pictures 2 --threads 1".split()

# What of a document the script needs.
HARNESS = r"""
const page = require("fs").readFileSync(process.argv[2], "utf8");
const figures = [...page.matchAll(/<figure class=problem>[\s\S]*?<\/figure>/g)].map(([figure]) => {
  const data = figure.match(/<script type='application\/json'>(.*?)<\/script>/)[1];
  const canvas = () => {
    const own = {style: {}, squares: 0, texts: [], addEventListener: (_, f) => { own.move = f; },
                 getBoundingClientRect: () => ({left: 0, top: 0, width: 90, height: 90})};
    const pen = {scale() {}, clearRect() { own.squares = 0; own.texts = []; },
                 fillRect() { ++own.squares; }, fillText(text) { own.texts.push(text); }};
    own.getContext = () => pen;
    return own;
  };
  const boards = [canvas(), canvas()];
  const slider = {value: JSON.parse(data).frames.length - 1, addEventListener: (_, f) => { slider.move = f; }};
  const parts = {script: {textContent: data}, input: slider, output: {}, ".tell": {}};
  return {boards, parts, slider, querySelectorAll: () => boards, querySelector: name => parts[name]};
});
globalThis.window = {};
globalThis.document = {body: {}, querySelectorAll: () => figures};
globalThis.getComputedStyle = () => ({color: "#000"});
eval(page.match(/<script>([\s\S]*?)<\/script>/)[1]);
const found = figures.map(figure => {
  const last = figure.parts.output.textContent;
  figure.slider.value = 0;
  figure.slider.move();
  figure.boards[0].move({target: figure.boards[0], clientX: 15, clientY: 15});
  return {last, first: figure.parts.output.textContent, tell: figure.parts[".tell"].textContent,
          squares: figure.boards.map(board => board.squares), texts: figure.boards[0].texts};
});
console.log(JSON.stringify(found));
"""


def main():
    node = shutil.which("node") or shutil.which("nodejs")
    if not node:
        print("no Node.js: skipped")
        return 77
    deq = sys.argv[1]
    with tempfile.TemporaryDirectory() as folder:
        run, out = pathlib.Path(folder) / "run", pathlib.Path(folder) / "out"
        for command in (["train", run, *TRAIN], ["sweep", run, "--out", out, *SWEEP]):
            subprocess.run([deq, *map(str, command)], check=True, stdout=subprocess.DEVNULL)
        (out / "harness.js").write_text(HARNESS)
        output = subprocess.run([node, out / "harness.js", out / "sweep.html"], check=True, capture_output=True)
    found = json.loads(output.stdout)
    assert len(found) == 4, f"{len(found)} pictures; expected two of each set"
    for number, one in enumerate(found):
        assert one["first"].startswith("after 1 steps: "), one["first"]
        assert one["last"].startswith("after 9 steps: "), one["last"]
        assert one["squares"] == [(49, 81)[number // 2]] * 2, one["squares"]
        assert {"S", "E"} <= set(one["texts"]), one["texts"]
        assert "#" not in one["texts"], "walls are drawn, not written"
        assert one["tell"].startswith("row 2, column 2: given ") and "right is" in one["tell"], one["tell"]
    return 0


sys.exit(main())
