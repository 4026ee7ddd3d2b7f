"""Arguments, starts, checkpointing: torchdeq.utils."""

import argparse
import difflib

import torch
import torch.utils.checkpoint

from .. import _core

_SOLVERS = "anderson, broyden, fixed_point_iter, simple_fixed_point_iter"

# name, default, type (a list: several numbers; bool: a switch), what it is
ARGUMENTS = [
    ("f_solver", "fixed_point_iter", str, f"solver of z = f(z): {_SOLVERS}"),
    ("b_solver", "fixed_point_iter", str, f"solver of the adjoint u = J^T u + g, where ift is on: {_SOLVERS}"),
    ("f_max_iter", 40, int, "steps of the forward solver at most"),
    ("b_max_iter", 40, int, "steps of the adjoint's solver at most"),
    ("f_tol", 1e-3, float, "tolerance of the forward solver"),
    ("b_tol", 1e-6, float, "tolerance of the adjoint's solver"),
    ("f_stop_mode", "abs", str, "what f_tol is of: abs, |f(z) - z|, or rel, that / |f(z)|"),
    ("b_stop_mode", "abs", str, "the same of b_tol"),
    ("eval_factor", 1.0, float, "f_max_iter times this in evaluation mode"),
    ("eval_f_max_iter", 0, int, "f_max_iter in evaluation mode; 0: f_max_iter * eval_factor"),
    ("norm_type", "weight_norm", str, "weight_norm, spectral_norm or none"),
    ("norm_no_scale", False, bool, "no learned scale: norms are norm_target_norm"),
    ("norm_clip", False, bool, "weights are multiplied by norm_clip_value at most"),
    ("norm_clip_value", 1.0, float, "the largest factor of a weight, with norm_clip"),
    ("norm_target_norm", 1.0, float, "norm of a weight that learns no scale"),
    ("sn_n_power_iters", 1, int, "power iterations of the spectral norm at each reset"),
    ("core", "sliced", str, "how several states are had from a solve: sliced or indexing"),
    ("ift", False, bool, "the implicit gradient"),
    ("hook_ift", False, bool, "the same: the implicit gradient keeps one tape of f in any case"),
    ("n_states", 1, int, "states, evenly spaced over the solve, on which there is a gradient"),
    ("indexing", [], int, "steps after which such states are had"),
    ("gamma", 0.8, float, "weight of earlier states, for fp_correction"),
    ("grad", [1], int, "taped steps from the solve's end on, without ift; one number for each state"),
    ("tau", 1.0, float, "damping of these taped steps"),
    ("sup_gap", -1, int, "states among the taped steps: each so many; -1: the last alone"),
    ("sup_loc", [], int, "states among the taped steps: after these"),
    ("jac_loss_weight", 0.0, float, "weight of jac_reg, for your own loss"),
    ("jac_loss_freq", 0.0, float, "share of steps with jac_reg, for your own loss"),
    ("jac_incremental", 0, int, "steps after which jac_loss_weight grows, for your own loss"),
    ("sradius_mode", False, bool, "measure the spectral radius in evaluation mode"),
]
NAMES = [name for name, *_ in ARGUMENTS] + ["no_stat"]


def add_deq_args(parser):
    """Adds torchdeq's arguments to an argparse parser, with torchdeq's defaults."""
    for name, default, kind, about in ARGUMENTS:
        if kind is bool:
            parser.add_argument(f"--{name}", action="store_true", help=about)
        elif isinstance(default, list):
            parser.add_argument(f"--{name}", type=kind, nargs="+", default=default, help=about)
        else:
            parser.add_argument(f"--{name}", type=kind, default=default, help=about)


def unknown(name, known, of):
    """The error for a name that nobody reads."""
    near = difflib.get_close_matches(name, known, n=1)
    return _core.Error(f"unknown argument '{name}' of {of}" + (f"; the nearest is '{near[0]}'" if near else ""))


class DEQConfig:
    """Arguments from a dict, a namespace or another of these, and from keywords.

    A name that is not among `known` is an error, but in a namespace: there stand a program's own besides.
    """

    def __init__(self, config=None, known=None, **more):
        if isinstance(config, DEQConfig):
            self.config = dict(config.config)
        elif config is None or isinstance(config, dict):
            self.config = dict(config or {})
            self._check(self.config, known)
        elif isinstance(config, argparse.Namespace) or hasattr(config, "__dict__"):
            self.config = dict(vars(config))
        else:
            raise _core.Error(f"args is of type {type(config).__name__}; expected a dict or a namespace")
        self._check(more, known)
        self.config.update(more)

    @staticmethod
    def _check(given, known):
        for name in given:
            if known is not None and name not in known:
                raise unknown(name, known, "get_deq")

    def get(self, name, default=None):
        return self.config.get(name, default)


def mixed_init(z_shape, device=None):
    """A start whose numbers are N(0, 1) or 0, as likely (Anil et al. 2022)."""
    return torch.randn(*z_shape, device=device) * torch.randint(0, 2, tuple(z_shape), device=device)


def mem_gc(func, in_args=None):
    """func(*in_args) without keeping what its backward needs, which is computed again there."""
    return torch.utils.checkpoint.checkpoint(func, *(in_args or ()), use_reentrant=False)
