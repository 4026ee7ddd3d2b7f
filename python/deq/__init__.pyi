# Written by python3 -m deq._stubs: options are those of the core.
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

class Anderson(Solver):
    def __init__(self, *,
                 memory: int = 8,
                 ridge: float = 0.0001,
                 mixing: float = 1.0,
                 scope: Literal["sample", "position", "causal", "whole"] = 'sample',
                 decay: float = 0.95) -> None: ...

class Broyden(Solver):
    def __init__(self, *,
                 memory: int = 20,
                 line_search: bool = False,
                 scope: Literal["sample", "position", "causal", "whole"] = 'sample') -> None: ...

class Picard(Solver):
    def __init__(self, *,
                 damping: float = 1.0,
                 scope: Literal["sample", "position", "causal", "whole"] = 'sample') -> None: ...

class Sweep(Solver):
    def __init__(self, *,
                 inner: int = 100,
                 scope: Literal["sample", "position", "causal", "whole"] = 'position') -> None: ...

class PeacemanRachford(Solver):
    def __init__(self, *,
                 alpha: float = 0.0,
                 memory: int = 4,
                 scope: Literal["sample", "position", "causal", "whole"] = 'sample') -> None: ...

class DouglasRachford(Solver):
    def __init__(self, *,
                 alpha: float = 0.0,
                 memory: int = 4,
                 scope: Literal["sample", "position", "causal", "whole"] = 'sample') -> None: ...

class ForwardBackward(Solver):
    def __init__(self, *,
                 alpha: float = 0.0,
                 memory: int = 8,
                 scope: Literal["sample", "position", "causal", "whole"] = 'sample') -> None: ...

class Descent(Solver):
    def __init__(self, *,
                 step: float = 1.0,
                 scope: Literal["sample", "position", "causal", "whole"] = 'sample') -> None: ...

class ConjugateResidual(Solver):
    def __init__(self, *,
                 scope: Literal["sample", "position", "causal", "whole"] = 'sample') -> None: ...

class Implicit(Gradient):
    def __init__(self, *,
                 solver: Union[Solver, type[Solver], Literal["anderson", "broyden", "picard", "sweep", "peaceman-rachford", "douglas-rachford", "forward-backward", "descent", "conjugate-residual"]] = 'anderson',
                 max_steps: int = 40,
                 rel_tol: float = 0.001,
                 abs_tol: float = 0.0,
                 shine: int = 0) -> None: ...

class Phantom(Gradient):
    def __init__(self, *,
                 steps: int = 5,
                 damping: float = 1.0) -> None: ...

class OneStep(Gradient):
    def __init__(self) -> None: ...

class Unrolled(Gradient):
    def __init__(self, *,
                 steps: int = 12,
                 damping: float = 1.0) -> None: ...

class Checkpointed(Gradient):
    def __init__(self, *,
                 steps: int = 12,
                 damping: float = 1.0) -> None: ...

class Reversible(Gradient):
    def __init__(self, *,
                 steps: int = 12,
                 damping: float = 0.5) -> None: ...

def equilibrate(f: Union[Map, Callable[[State], State]], z0: State, *,
                on_adjoint: Optional[Callable[[Report], Any]] = ...,
                solver: Union[Solver, type[Solver], Literal["anderson", "broyden", "picard", "sweep", "peaceman-rachford", "douglas-rachford", "forward-backward", "descent", "conjugate-residual"]] = 'anderson',
                solver_memory: int = ...,
                solver_ridge: float = ...,
                solver_mixing: float = ...,
                solver_scope: Literal["sample", "position", "causal", "whole"] = ...,
                solver_decay: float = ...,
                solver_line_search: bool = ...,
                solver_damping: float = ...,
                solver_inner: int = ...,
                solver_alpha: float = ...,
                solver_step: float = ...,
                max_steps: int = 40,
                rel_tol: float = 0.001,
                abs_tol: float = 0.0,
                gradient: Union[Gradient, type[Gradient], Literal["implicit", "phantom", "one-step", "unrolled", "checkpointed", "reversible"]] = 'implicit',
                gradient_solver: Union[Solver, type[Solver], Literal["anderson", "broyden", "picard", "sweep", "peaceman-rachford", "douglas-rachford", "forward-backward", "descent", "conjugate-residual"]] = ...,
                gradient_solver_memory: int = ...,
                gradient_solver_ridge: float = ...,
                gradient_solver_mixing: float = ...,
                gradient_solver_scope: Literal["sample", "position", "causal", "whole"] = ...,
                gradient_solver_decay: float = ...,
                gradient_solver_line_search: bool = ...,
                gradient_solver_damping: float = ...,
                gradient_solver_inner: int = ...,
                gradient_solver_alpha: float = ...,
                gradient_solver_step: float = ...,
                gradient_max_steps: int = ...,
                gradient_rel_tol: float = ...,
                gradient_abs_tol: float = ...,
                gradient_shine: int = ...,
                gradient_steps: int = ...,
                gradient_damping: float = ...) -> Tuple[State, Report]: ...
def equilibrium(f: Union[Map, Callable[[State], State]], z0: State, *,
                on_adjoint: Optional[Callable[[Report], Any]] = ...,
                solver: Union[Solver, type[Solver], Literal["anderson", "broyden", "picard", "sweep", "peaceman-rachford", "douglas-rachford", "forward-backward", "descent", "conjugate-residual"]] = 'anderson',
                solver_memory: int = ...,
                solver_ridge: float = ...,
                solver_mixing: float = ...,
                solver_scope: Literal["sample", "position", "causal", "whole"] = ...,
                solver_decay: float = ...,
                solver_line_search: bool = ...,
                solver_damping: float = ...,
                solver_inner: int = ...,
                solver_alpha: float = ...,
                solver_step: float = ...,
                max_steps: int = 40,
                rel_tol: float = 0.001,
                abs_tol: float = 0.0,
                gradient: Union[Gradient, type[Gradient], Literal["implicit", "phantom", "one-step", "unrolled", "checkpointed", "reversible"]] = 'implicit',
                gradient_solver: Union[Solver, type[Solver], Literal["anderson", "broyden", "picard", "sweep", "peaceman-rachford", "douglas-rachford", "forward-backward", "descent", "conjugate-residual"]] = ...,
                gradient_solver_memory: int = ...,
                gradient_solver_ridge: float = ...,
                gradient_solver_mixing: float = ...,
                gradient_solver_scope: Literal["sample", "position", "causal", "whole"] = ...,
                gradient_solver_decay: float = ...,
                gradient_solver_line_search: bool = ...,
                gradient_solver_damping: float = ...,
                gradient_solver_inner: int = ...,
                gradient_solver_alpha: float = ...,
                gradient_solver_step: float = ...,
                gradient_max_steps: int = ...,
                gradient_rel_tol: float = ...,
                gradient_abs_tol: float = ...,
                gradient_shine: int = ...,
                gradient_steps: int = ...,
                gradient_damping: float = ...) -> State: ...
def solve(f: Union[Map, Callable[[State], State]], z0: State, *,
          solver: Union[Solver, type[Solver], Literal["anderson", "broyden", "picard", "sweep", "peaceman-rachford", "douglas-rachford", "forward-backward", "descent", "conjugate-residual"]] = 'anderson',
          solver_memory: int = ...,
          solver_ridge: float = ...,
          solver_mixing: float = ...,
          solver_scope: Literal["sample", "position", "causal", "whole"] = ...,
          solver_decay: float = ...,
          solver_line_search: bool = ...,
          solver_damping: float = ...,
          solver_inner: int = ...,
          solver_alpha: float = ...,
          solver_step: float = ...,
          max_steps: int = 40,
          rel_tol: float = 0.001,
          abs_tol: float = 0.0) -> Tuple[State, Report]: ...
def jacobian_loss(f: Union[Map, Callable[[State], State]], z: State, probes: int = 1) -> Tensor: ...
def spectral_radius(f: Union[Map, Callable[[State], State]], z: State, max_products: int = 1280) -> SpectralRadius: ...

class Layer(torch.nn.Module):
    f: Any
    options: Dict[str, Any]
    def __init__(self, f: Callable[..., Any], *,
                solver: Union[Solver, type[Solver], Literal["anderson", "broyden", "picard", "sweep", "peaceman-rachford", "douglas-rachford", "forward-backward", "descent", "conjugate-residual"]] = 'anderson',
                solver_memory: int = ...,
                solver_ridge: float = ...,
                solver_mixing: float = ...,
                solver_scope: Literal["sample", "position", "causal", "whole"] = ...,
                solver_decay: float = ...,
                solver_line_search: bool = ...,
                solver_damping: float = ...,
                solver_inner: int = ...,
                solver_alpha: float = ...,
                solver_step: float = ...,
                max_steps: int = 40,
                rel_tol: float = 0.001,
                abs_tol: float = 0.0,
                gradient: Union[Gradient, type[Gradient], Literal["implicit", "phantom", "one-step", "unrolled", "checkpointed", "reversible"]] = 'implicit',
                gradient_solver: Union[Solver, type[Solver], Literal["anderson", "broyden", "picard", "sweep", "peaceman-rachford", "douglas-rachford", "forward-backward", "descent", "conjugate-residual"]] = ...,
                gradient_solver_memory: int = ...,
                gradient_solver_ridge: float = ...,
                gradient_solver_mixing: float = ...,
                gradient_solver_scope: Literal["sample", "position", "causal", "whole"] = ...,
                gradient_solver_decay: float = ...,
                gradient_solver_line_search: bool = ...,
                gradient_solver_damping: float = ...,
                gradient_solver_inner: int = ...,
                gradient_solver_alpha: float = ...,
                gradient_solver_step: float = ...,
                gradient_max_steps: int = ...,
                gradient_rel_tol: float = ...,
                gradient_abs_tol: float = ...,
                gradient_shine: int = ...,
                gradient_steps: int = ...,
                gradient_damping: float = ...) -> None: ...
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
