"""The package's stubs, made from the core's fields: python3 -m deq._stubs [FOLDER] prints or writes them."""

import pathlib
import sys

from . import _core
from ._options import class_name, default_of

_TYPES = {"bool": "bool", "int": "int", "float": "float", "text": "str", "list": "Sequence[int]"}
_KINDS = {"solver": "Solver", "gradient": "Gradient"}

HEAD = '''# Written by python3 -m deq._stubs: options are those of the core.
from os import PathLike
from typing import Any, Callable, Dict, List, Literal, Mapping, NamedTuple, Optional, Sequence, Tuple, TypeVar, Union

import torch
from torch import Tensor

from . import cells as cells

__version__: str
State = TypeVar("State", Tensor, Tuple[Tensor, ...], List[Tensor])

class Error(RuntimeError, ValueError): ...

class Reason:
    CONVERGED: Reason
    MAX_STEPS: Reason
    DIVERGED: Reason
    NON_FINITE: Reason
    INFEASIBLE: Reason
    UNBOUNDED: Reason
    NOT_CONVEX: Reason
    NOT_UNIQUE: Reason
    STEP_UNDERFLOW: Reason
    EVENT_MISSED: Reason
    name: str
    value: int
    def __int__(self) -> int: ...

class Report:
    reason: Tensor
    residual: Tensor
    steps: Tensor
    trace: Tensor
    rate: Tensor
    evaluations: int
    bad_starts: int
    max_steps: int
    rel_tol: float
    abs_tol: float
    converged: bool
    converged_share: float
    worst_residual: float
    mean_residual: float
    error_estimate: float
    adjoint: Optional[Report]
    def count(self, reason: Reason) -> int: ...

class SpectralRadius:
    radius: Tensor
    residual: Tensor
    moved: Tensor
    products: int
    converged: bool

class Map:
    def __call__(self, z: Tensor) -> Tensor: ...

class Solver:
    name: str
    options: Dict[str, Any]

class Gradient:
    name: str
    options: Dict[str, Any]

'''
CALLS = '''
def equilibrate(f: Union[Map, Callable[[State], State]], z0: State, *,
                on_adjoint: Optional[Callable[[Report], Any]] = ...,
{options}) -> Tuple[State, Report]: ...
def equilibrium(f: Union[Map, Callable[[State], State]], z0: State, *,
                on_adjoint: Optional[Callable[[Report], Any]] = ...,
{options}) -> State: ...
def solve(f: Union[Map, Callable[[State], State]], z0: State, *,
{solve_options}) -> Tuple[State, Report]: ...
def jacobian_loss(f: Union[Map, Callable[[State], State]], z: State, probes: int = 1) -> Tensor: ...
def spectral_radius(f: Union[Map, Callable[[State], State]], z: State, max_products: int = 1280) -> SpectralRadius: ...

class Layer(torch.nn.Module):
    f: Any
    options: Dict[str, Any]
    def __init__(self, f: Callable[..., Any], *,
{options}) -> None: ...
    def forward(self, *inputs: Any, z0: Any = ...) -> Any: ...
    def equilibrate(self, *inputs: Any, z0: Any = ...,
                    on_adjoint: Optional[Callable[[Report], Any]] = ...) -> Tuple[Any, Report]: ...

class Output(NamedTuple):
    z: Tensor
    histories: List[Any]
    report: Report

class Model(torch.nn.Module):
    config: Dict[str, Any]
    vocabulary_size: int
    def __init__(self, folder: Union[str, PathLike[str]], checkpoint: str = ..., device: str = ...) -> None: ...
    def forward(self, tokens: Tensor, histories: Optional[List[Any]] = ..., history: int = ...,
                **options: Any) -> Output: ...
    def loss(self, z: Tensor, targets: Tensor) -> Tensor: ...
    def log_probabilities(self, z: Tensor) -> Tensor: ...
    def encode(self, text: str) -> Tensor: ...
    def decode(self, tokens: Union[Tensor, Sequence[int]]) -> str: ...
    def generate(self, prompt: Union[None, str, Sequence[str]] = ..., tokens: int = ...,
                 on_token: Optional[Callable[[int, int], Any]] = ...,
                 **options: Any) -> Tuple[Any, Dict[str, Any]]: ...
    def evaluate(self, split: str = ..., data: Union[str, PathLike[str]] = ..., **options: Any) -> Dict[str, Any]: ...

def load(run: Union[str, PathLike[str]], checkpoint: str = ..., device: str = ...) -> Model: ...
def save_file(tensors: Mapping[str, Tensor], path: Union[str, PathLike[str]],
              metadata: Optional[Mapping[str, str]] = ...) -> None: ...
def load_file(path: Union[str, PathLike[str]]) -> Dict[str, Tensor]: ...
'''
CELLS = '''# Written by python3 -m deq._stubs: options are those of the core.
from typing import Any, Dict, Literal, Optional, Sequence, Tuple

import torch
from torch import Tensor

from . import Map

class Cell(torch.nn.Module):
    name: str
    options: Dict[str, Any]
    causal: bool
    injects: bool
    input_width: int
    state_width: int
    output_width: int
    def bind(self, x: Tensor, past: Optional[Tuple[Tensor, Tensor]] = ...) -> Map: ...
    def forward(self, z: Tensor, x: Tensor, past: Optional[Tuple[Tensor, Tensor]] = ...) -> Tensor: ...
    def output(self, z: Tensor) -> Tensor: ...

'''


def type_of(info):
    """As a stub writes it; a choice among alternatives may be one of them."""
    if info.type != "choice":
        return _TYPES[info.type]
    names = "Literal[" + ", ".join(f'"{name}"' for name in info.choices) + "]"
    kind = _KINDS.get(info.key.rpartition("_")[2])
    return f"Union[{kind}, type[{kind}], {names}]" if kind else names


def arguments(infos, indent, of_alternatives=False):
    """A line for each option; those of alternatives have no default that holds for all."""
    lines = []
    for info in infos:
        if info.owner and not of_alternatives:
            continue
        default = "..." if info.owner else repr(default_of(info))
        lines.append(f"{indent}{info.key}: {type_of(info)} = {default}")
    return ",\n".join(lines)


def classes(kind, base, before=""):
    text = ""
    for name, infos in _core.alternatives(kind):
        own = arguments(infos, " " * 17)
        inner = ", *,\n" + before + ("" if not own else (",\n" if before else "") + own) if own or before else ""
        text += f"class {class_name(name)}({base}):\n    def __init__(self{inner}) -> None: ...\n\n"
    return text


def package_stub():
    infos = _core.equilibrium_options()
    solve = [info for info in infos if not info.key.startswith("gradient")]
    calls = CALLS.replace("{options}", arguments(infos, " " * 16, True)).replace(
        "{solve_options}", arguments(solve, " " * 10, True))
    return HEAD + classes("solver", "Solver") + classes("gradient", "Gradient").rstrip("\n") + "\n" + calls


def cells_stub():
    before = " " * 17 + "init_std: float = 0.02,\n" + " " * 17 + "symbols: int = 0"
    return CELLS + classes("cell", "Cell", before).rstrip("\n") + "\n"


if __name__ == "__main__":
    if len(sys.argv) > 1:
        folder = pathlib.Path(sys.argv[1])
        (folder / "__init__.pyi").write_text(package_stub())
        (folder / "cells.pyi").write_text(cells_stub())
    else:
        sys.stdout.write(package_stub() + cells_stub())
