#!/usr/bin/env python3
"""The include check can fail: each bad line, alone in a tree, is found."""
import pathlib
import subprocess
import sys
import tempfile

CHECK = pathlib.Path(__file__).parents[1] / "scripts" / "check_includes.py"
GOOD = {
    "deq/base/a.h": "#include <vector>\n",
    "deq/solvers/a.cpp": '#include "deq/base/a.h"\n#include "deq/ops/b.h"\n#include "deq/solvers/c.h"\n',
    "deq/train/a.cpp": '#include "deq/models/d.h"\n#include "deq/data/d.h"\n',
    "cli/a.cpp": '#include "deq/train/a.h"\n',
    "deq/base/b.h": "/// Says what it is.\ntemplate <class T>\nclass B {\n};\nclass Ahead;\n"
    "namespace detail {\nstruct Hidden {};\n}  // namespace detail\n",
    "README.md": "x" * 200 + "\n",
}
BAD = {
    "deq/base/x.h": '#include "deq/ops/rows.h"\n',
    "deq/solvers/x.cpp": '#include "deq/cells/cell.h"\n',
    "deq/gradients/x.cpp": '#include "deq/ops/rows.h"\n',
    "deq/cells/x.cpp": '#include "deq/solvers/anderson.h"\n',
    "deq/data/x.h": '  #  include "deq/models/lm.h"\n',
    "deq/models/x.cpp": '#include "cli/commands.h"\n',
    "deq/ops/x.cpp": "#include <torch/torch.h>\n",
    "deq/decode/x.cpp": '#include "../base/error.h"\n',
    "deq/train/x.cpp": '#include "schedule.h"\n',
    "deq/train/y.cpp": '#include "deq/decode/sampling.h"\n',
    "deq/rooms/x.cpp": "\n",
    "deq/x.h": "\n",
    "deq/base/long.cpp": "\n" * 501,
    "deq/base/wide.h": "// " + "x" * 98 + "\n",
    "deq/base/bare.h": "// About the file.\n#pragma once\n\nclass Bare {\n};\n",
    "deq/base/bare_template.h": "template <class T>\nstruct Bare : Base<T> {\n};\n",
    "docs/wide.md": "x" * 201 + "\n",
    "tests/x.cpp": '#include "../deq/base/error.h"\n',
}


def run(files):
    with tempfile.TemporaryDirectory() as root:
        for name, text in files.items():
            path = pathlib.Path(root, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return subprocess.run([sys.executable, CHECK, root], capture_output=True, text=True)


failures = []
result = run(GOOD)
if result.returncode != 0:
    failures.append(f"good tree: {result.stdout}{result.stderr}")
for name, text in BAD.items():
    result = run(GOOD | {name: text})
    if result.returncode != 1 or not result.stdout.startswith(f"{name}:"):
        failures.append(f"{name}: exit {result.returncode}, {result.stdout}{result.stderr}")
if run({}).returncode != 1:
    failures.append("an empty tree passed")
print("\n".join(failures) or f"{len(BAD)} violations found")
sys.exit(bool(failures))
