"""The Python of the documents runs as it stands there."""

import os
import pathlib
import re
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]


class Documents(unittest.TestCase):
    def run_blocks(self, page, at_least):
        blocks = re.findall(r"^```python\n(.*?)^```", (ROOT / page).read_text(), re.DOTALL | re.MULTILINE)
        self.assertGreaterEqual(len(blocks), at_least)
        names = {}
        before = os.getcwd()
        with tempfile.TemporaryDirectory() as folder:
            os.symlink(ROOT / "models", pathlib.Path(folder) / "models")
            (pathlib.Path(folder) / "text.txt").write_text("What's in a name? That which we call a rose\n" * 9)
            os.chdir(folder)
            try:
                for block in blocks:
                    if "import deq" in block or "deq" in names:
                        exec(compile(block, page, "exec"), names)
            finally:
                os.chdir(before)
        return names

    def test_python_page(self):
        names = self.run_blocks("docs/python.md", 3)
        self.assertEqual(names["report"]["tokens"], 100)
        self.assertGreater(names["numbers"]["loss"], 0)

    def test_readme(self):
        self.run_blocks("README.md", 0)


if __name__ == "__main__":
    unittest.main()
