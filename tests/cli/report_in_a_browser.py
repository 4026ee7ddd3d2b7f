#!/usr/bin/env python3
"""Opens the page of a small run in a browser, on a phone's width and a desk's.

usage: report_in_a_browser.py DEQ

Exits 77, which is skipped, where there is no Chromium.
"""
import json
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

WIDTHS = (390, 1280)
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
OPTIONS = ("--cell-width 16 --cell-heads 2 --cell-inner 24 --batch 4 --length 12 --history 12 --steps 12 "
           "--eval-every 5 --log-every 1 --eval-lanes 4 --eval-length 12 --threads 1 --task bytes").split()

# The page in a frame of each width; the script puts what it measured into the document.
FRAMES = """<!doctype html><body>%s<pre id=found></pre><script>
onload = () => {
  const found = [...document.querySelectorAll("iframe")].map(frame => {
    const page = frame.contentDocument, root = page.documentElement;
    const drawn = [...page.querySelectorAll("svg")].map(svg => svg.getBoundingClientRect());
    const labels = [...page.querySelectorAll("svg text")];
    const cut = label => {
      const text = label.getBoundingClientRect(), chart = label.ownerSVGElement.getBoundingClientRect();
      return text.left < chart.left - 0.5 || text.right > chart.right + 0.5;
    };
    return {width: root.clientWidth, needed: root.scrollWidth, charts: drawn.length,
            smallest: Math.min(...drawn.map(box => Math.min(box.width, box.height))),
            lines: page.querySelectorAll("polyline").length,
            cut: labels.filter(cut).map(label => label.textContent),
            negative: labels.filter(label => label.textContent.startsWith("-")).map(label => label.textContent),
            positions: page.querySelectorAll(".heat span").length,
            style: getComputedStyle(page.querySelector("polyline")).stroke};
  });
  document.getElementById("found").textContent = JSON.stringify(found);
};
</script>"""


def measure(browser, folder):
    frames = "".join(f'<iframe src="report.html" width="{width}" height="900"></iframe>' for width in WIDTHS)
    wrapper = folder / "frames.html"
    wrapper.write_text(FRAMES % frames)
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files",
               f"--user-data-dir={folder / 'profile'}", "--virtual-time-budget=5000", "--dump-dom",
               wrapper.as_uri()]
    dom = subprocess.run(command, capture_output=True, text=True, timeout=120).stdout
    text = re.search(r'<pre id="found">(.*?)</pre>', dom, re.S)
    assert text and text.group(1), f"the browser measured nothing: {dom[:300]!r}"
    return json.loads(text.group(1))


def main():
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if not browser:
        print("skipped: no Chromium to look at the page with; known:", ", ".join(BROWSERS))
        return 77
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        (folder / "text.txt").write_text("the quick brown fox jumps over the lazy dog <&>\n" * 80)
        run = folder / "a-run-with-a-name-that-is-rather-long-for-a-column-of-a-table"
        deq = sys.argv[1]
        subprocess.run([deq, "train", run, "--data", folder / "text.txt", *OPTIONS], check=True, timeout=300,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        subprocess.run([deq, "report", run, "--out", folder / "report.html"], check=True, timeout=300)
        found = measure(browser, folder)
    print(json.dumps(found, indent=1))
    for width, page in zip(WIDTHS, found):
        assert page["needed"] <= page["width"] <= width, f"the page is wider than {width}: {page}"
        assert page["charts"] >= 10 and page["lines"] >= page["charts"], page
        assert page["smallest"] >= 100, f"a chart is too small to read: {page}"
        assert not page["cut"], f"labels that the edge of their chart cuts off: {page}"
        assert not page["negative"], f"an axis of what is never negative begins below zero: {page}"
        assert page["positions"] == 3 * 12, f"not every position of the passage is there: {page}"
        assert page["style"].startswith("rgb"), f"lines have no colour: {page}"
    return 0


if __name__ == "__main__":
    sys.exit(main())
