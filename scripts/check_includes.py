#!/usr/bin/env python3
"""Checks the order of the rooms: who may include whom, and a few habits that a compiler cannot see.

usage: check_includes.py [ROOT]

Prints one line per violation and exits 1 where there is one. Sizes over 300 lines are warnings.
"""
import pathlib
import re
import sys

# A room may include itself and those named here.
ALLOWED = {
    "base": set(),
    "files": {"base"},
    "data": {"base", "files"},
    "tasks": {"base", "files", "data"},
    "ops": {"base"},
    "solvers": {"base", "ops"},
    "gradients": {"base", "solvers"},
    "cells": {"base", "ops"},
    "layers": {"base", "ops", "solvers", "gradients", "cells"},
    "heads": {"base", "ops", "cells"},
    "models": {"base", "cells", "layers", "heads"},
    "decode": {"base", "files", "solvers", "cells", "layers", "models"},
    "distributed": {"base"},
    "train": {"base", "files", "distributed", "data", "tasks", "solvers", "gradients", "cells", "layers", "models"},
    "runs": {"base", "files", "distributed", "data", "tasks", "cells", "layers", "models", "train"},
    "report": {"base", "files", "solvers", "layers", "models", "data", "train", "runs"},
    "measure": {"base", "files", "ops", "solvers", "gradients", "cells", "layers", "models", "decode", "data", "train",
                "runs", "report"},
}
FREE = ("cli", "python", "tests", "examples", "bench", "fuzz")  # these may include everything below them
EVERYTHING = pathlib.Path("deq/deq.h")  # for programs
LONG, TOO_LONG = 300, 500
COLUMNS, DOCUMENT_COLUMNS = 100, 200  # .clang-format leaves comments as they are
COMMENT = re.compile(r"(^|\s)//")
TYPE = re.compile(r"(class|struct) (\w+)( final)?( : .*| \{.*|)$")
INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]')


def check_include(path, quote, target):
    """The complaint about one include of the file `path`, or None."""
    if quote == '"' and ".." in target.split("/"):
        return f'"{target}" climbs; includes start at the root, as in "deq/base/error.h"'
    if path.parts[0] != "deq" or path == EVERYTHING:
        return None
    room = path.parts[1]
    if target == str(EVERYTHING):
        return f'"{target}" is for programs; include the few headers that are needed'
    if target == "torch/torch.h":
        return "<torch/torch.h> takes 21 s for each file; include the few headers that are needed"
    head = target.split("/")[0]
    if head in FREE and quote == '"':
        return f'"{target}": the library does not know {head}/'
    if head != "deq":
        if quote == '"' and "/" not in target:
            return f'"{target}": includes start at the root, as in "deq/{room}/{target}"'
        return None
    other = target.split("/")[1] if target.count("/") >= 2 else ""
    if other not in ALLOWED:
        return f'"{target}": no such room; known: {", ".join(ALLOWED)}'
    if other != room and other not in ALLOWED[room]:
        allowed = ", ".join(sorted(ALLOWED[room])) or "nothing else of ours"
        return f'"{target}": {room} may include {allowed}'
    return None


def types_without_contract(lines):
    """Yields (line, name) of types that a header gives to others without a word on what they are."""
    inside_detail = False
    for number, line in enumerate(lines, 1):
        if line.startswith("namespace ") and "detail" in line:
            inside_detail = True
        elif line.startswith("}  // namespace"):
            inside_detail = False
        match = TYPE.match(line)
        if not match or inside_detail:
            continue
        before = number - 2
        while before >= 0 and lines[before].startswith("template"):
            before -= 1
        if before < 0 or not lines[before].startswith("///"):
            yield number, match.group(2)


def check_file(root, path):
    """Yields (line, complaint) for a source file; line 0 marks a warning."""
    room = path.parts[1] if path.parts[0] == "deq" and path != EVERYTHING else None
    if room is not None and (len(path.parts) < 3 or room not in ALLOWED):
        yield 1, f"sources stand in a room, deq/<room>/; known: {', '.join(ALLOWED)}"
        return
    lines = (root / path).read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines, 1):
        match = INCLUDE.match(line)
        complaint = match and check_include(path, *match.groups())
        if complaint:
            yield number, complaint
        if len(line) > COLUMNS and COMMENT.search(line):
            yield number, f"{len(line)} columns; at most {COLUMNS}"
    if room is not None and path.suffix == ".h":
        for number, name in types_without_contract(lines):
            yield number, f"{name} has no contract; expected /// lines before it that say what it is"
    if len(lines) > TOO_LONG:
        yield len(lines), f"{len(lines)} lines; at most {TOO_LONG}"
    elif len(lines) > LONG:
        yield 0, f"{len(lines)} lines; few files need more than {LONG}"


def check_document(root, path):
    """Yields (line, complaint) for a document."""
    for number, line in enumerate((root / path).read_text(encoding="utf-8").splitlines(), 1):
        if len(line) > DOCUMENT_COLUMNS:
            yield number, f"{len(line)} columns; at most {DOCUMENT_COLUMNS}"


def main():
    root = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).parents[1])
    files = sorted(
        path.relative_to(root)
        for folder in ("deq", *FREE)
        for path in (root / folder).rglob("*")
        if path.suffix in (".h", ".cpp", ".cu", ".cuh", ".inc")
    )
    if not files:
        print(f"{root}: no sources in deq/, {'/, '.join(FREE)}/")
        return 1
    documents = sorted(path.relative_to(root) for path in (*root.glob("*.md"), *root.glob("docs/*.md")))
    violations = 0
    for check, paths in ((check_file, files), (check_document, documents)):
        for path in paths:
            for line, complaint in check(root, path):
                violations += line > 0
                print(f"{path}:{line}: {complaint}" if line else f"{path}: warning: {complaint}")
    print(f"include order: {len(files)} files, {violations} violations")
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main())
