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
        self.assertTrue(names["report"]["tokens"] == 100)
        self.assertEqual(names["numbers"]["split"], "test") if "numbers" in names else None

    def test_readme(self):
        self.run_blocks("README.md", 0)


if __name__ == "__main__":
    unittest.main()
