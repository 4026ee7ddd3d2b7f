"""deq's solvers behind torchdeq's names: torchdeq.solver."""

import torch

from .. import _core
from .._options import equilibrium_options
from .utils import unknown

_NAN = float("nan")
_registered = {}


class SolverStat(dict):
    """What a solve says of itself: abs_lowest, rel_lowest, nstep (B), abs_trace, rel_trace (B, N), sradius.

    The residuals are those of the state that is returned. NaN: not known.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        for name, shape in (("abs_lowest", (1,)), ("rel_lowest", (1,)), ("abs_trace", (1, 1)), ("rel_trace", (1, 1)),
                            ("nstep", (1,)), ("sradius", (1,))):
            self.setdefault(name, torch.full(shape, -1.0))


def stop_of(tol, mode, max_iter):
    """deq's stop rule."""
    if mode not in ("abs", "rel"):
        raise _core.Error(f"stop_mode = {mode!r}; expected 'abs' or 'rel'")
    return {"max_steps": int(max_iter), "abs_tol": float(tol) if mode == "abs" else 0.0,
            "rel_tol": float(tol) if mode == "rel" else 0.0}


def _picard(kwargs, max_iter):
    return {"solver": "picard", "solver_damping": kwargs.pop("tau", 1.0)}


def _anderson(kwargs, max_iter):
    options = {"solver": "anderson", "solver_memory": kwargs.pop("m", 6), "solver_mixing": kwargs.pop("tau", 1.0)}
    if "ridge" in kwargs:
        options["solver_ridge"] = kwargs.pop("ridge")
    if kwargs.pop("lam", None) is not None:
        raise _core.Error("lam is an absolute ridge, which deq lacks; expected ridge, relative to each residual [1e-4]")
    return options


def _broyden(kwargs, max_iter):
    memory = kwargs.pop("LBFGS_thres", None)
    return {"solver": "broyden", "solver_memory": min(int(max_iter), 1024) if memory is None else memory,
            "solver_line_search": kwargs.pop("ls", False)}


_METHODS = {"fixed_point_iter": _picard, "simple_fixed_point_iter": _picard, "anderson": _anderson,
            "broyden": _broyden}


def options_of(name, tol, stop_mode, max_iter, kwargs):
    """The options of deq.solve for a solver of torchdeq's and its arguments; what they do not name is an error."""
    left = dict(kwargs)
    if left.pop("return_final", False):
        raise _core.Error("return_final: deq returns the last state unless it is far worse than the best; "
                          "expected a tolerance of 0 for all steps")
    options = _METHODS[name](left, max_iter)
    for key in left:
        raise unknown(key, ["tau", "m", "lam", "ridge", "ls", "LBFGS_thres", "return_final"], name)
    if name == "simple_fixed_point_iter":
        tol = 0.0  # it never stops early
    return {**options, **stop_of(tol, stop_mode, max_iter)}


class Recorded:
    """f with the norms of its values, from which absolute residuals follow, and rows as torchdeq has them.

    A state of fewer than two dimensions has a row for each number.
    """

    def __init__(self, func, z0):
        self.several = not isinstance(z0, torch.Tensor)
        if self.several and not isinstance(z0, (tuple, list)):
            raise _core.Error(f"z0 is of type {type(z0).__name__}; expected a tensor, or a tuple or list of tensors")
        self.func = func
        self.shapes = [z.shape for z in z0] if self.several else z0.shape
        self.norms = []
        self.recording = True

    def rows(self, z):
        """As deq is to see it."""
        if self.several:
            return [one if one.dim() >= 2 else one.reshape(-1, 1) for one in z]
        return z if z.dim() >= 2 else z.reshape(-1, 1)

    def shown(self, z):
        """As f and the caller see it."""
        if self.several:
            return [one.reshape(shape) for one, shape in zip(z, self.shapes)]
        return z.reshape(self.shapes)

    def __call__(self, z):
        shown = self.shown(z)
        value = self.func(*shown) if self.several else self.func(shown)
        value = self.rows(value) if isinstance(value, (torch.Tensor, tuple, list)) else value
        if self.recording:
            self.norms.append(_norms(value))
        return value


def _norms(value):
    """(B) |value| of each row, detached."""
    parts = value if isinstance(value, (tuple, list)) else [value]
    with torch.no_grad():
        squares = [torch.linalg.vector_norm(part.flatten(1), dim=1) ** 2 for part in parts]
        return torch.stack(squares).sum(0).sqrt().double() if len(squares) > 1 else squares[0].sqrt().double()


def stat_of(report, norms, final_only=False):
    """torchdeq's statistics of a solve: `norms` are |f(z)| at each evaluation."""
    relative = report.residual
    final_only = final_only or report.trace is None
    last = norms[-1].cpu() if norms else torch.full_like(relative, _NAN)
    absolute = relative * last
    if final_only:
        return SolverStat(abs_lowest=absolute, rel_lowest=relative, abs_trace=absolute[:, None],
                          rel_trace=relative[:, None], nstep=report.steps.double())
    trace = report.trace.T.contiguous()  # (B, N)
    # One evaluation a step, and perhaps one more at the end; a line search has others in between.
    known = torch.stack(norms[:trace.shape[1]], 1).cpu() if len(norms) in (trace.shape[1], trace.shape[1] + 1) else _NAN
    return SolverStat(abs_lowest=absolute, rel_lowest=relative, abs_trace=trace * known, rel_trace=trace,
                      nstep=report.steps.double())


def solver_stat_from_final_step(z, fz, nstep=0):
    """Statistics of one state z and f(z)."""
    if not isinstance(z, torch.Tensor):
        z, fz = (torch.cat([part.flatten(1) for part in parts], 1) for parts in (z, fz))
    absolute = torch.linalg.vector_norm((fz - z).flatten(1), dim=1)
    relative = absolute / torch.linalg.vector_norm(fz.flatten(1), dim=1)
    return SolverStat(abs_lowest=absolute, rel_lowest=relative, abs_trace=absolute[:, None],
                      rel_trace=relative[:, None], nstep=torch.full_like(absolute, nstep))


def _solver(name, about):
    def solve(func, x0, max_iter=50, tol=1e-3, stop_mode="abs", indexing=None, **kwargs):
        f = Recorded(func, x0)
        options = equilibrium_options(options_of(name, tol, stop_mode, max_iter, kwargs))
        z, report = _core.solve(f, f.rows(x0), options)
        info = stat_of(report, f.norms, final_only=name.startswith("simple"))
        f.recording = False
        states = [f.shown(at[0]) for _, at in _core.solve_at_limits(f, f.rows(x0), options, list(indexing))] if indexing else []
        return f.shown(z), states, info

    solve.__name__ = solve.__qualname__ = name if name.endswith("iter") else f"{name}_solver"
    solve.__doc__ = f"{about}: (z, states after the steps in `indexing`, SolverStat)."
    return solve


anderson_solver = _solver("anderson", "Anderson's method; m: memory, tau: mixing")
broyden_solver = _solver("broyden", "Broyden's method; LBFGS_thres: memory, all steps by default, ls: line search")
fixed_point_iter = _solver("fixed_point_iter", "Plain iteration; tau: damping")
simple_fixed_point_iter = _solver("simple_fixed_point_iter", "Plain iteration for all max_iter steps; tau: damping")

_registered.update(anderson=anderson_solver, broyden=broyden_solver, fixed_point_iter=fixed_point_iter,
                   simple_fixed_point_iter=simple_fixed_point_iter)


def get_solver(key):
    """The solver of that name."""
    if key not in _registered:
        raise _core.Error(f"unknown solver '{key}'; known: {', '.join(_registered)}")
    return _registered[key]


def register_solver(solver_type, solver):
    """A forward solver of your own: solver(func, x0, max_iter, tol, stop_mode, indexing=..., ...) -> (z, states, info)."""
    if not callable(solver):
        raise _core.Error(f"solver is of type {type(solver).__name__}; expected a callable")
    _registered[solver_type] = solver


def is_own(name):
    """Whether deq solves what is called by that name."""
    return name in _METHODS and _registered[name].__module__ == __name__
