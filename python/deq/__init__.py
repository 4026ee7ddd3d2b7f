"""deq: deep equilibrium models, z* = f(z*, x), over Python's torch.

    z, report = deq.equilibrate(lambda z: torch.tanh(linear(z) + x), z0,
                                solver=deq.Anderson(memory=5), max_steps=40, rel_tol=1e-4)

The core is the C++ library of the same name: solvers, gradients and cells are its own, evaluations of f are yours.
"""

import atexit
import os

import torch  # noqa: F401  before the core, which stands on its libraries

from . import _core
from ._core import Error, Map, Reason, Report, SpectralRadius
from ._equilibria import equilibrate, equilibrium, jacobian_loss, solve, spectral_radius
from ._layer import Layer
from ._model import Model, Output, load, load_file, save_file
from ._options import Alternative, describe_options, make_alternatives
from ._place import VERSION as __version__


class Solver(Alternative):
    """A method for z = f(z)."""


class Gradient(Alternative):
    """How dL/dtheta crosses an equilibrium."""


_ABOUT = {
    "anderson": "Anderson acceleration: the next iterate mixes the last ones.",
    "broyden": "Limited-memory Broyden, in its compact form.",
    "picard": "Plain fixed-point iteration, damped or not.",
    "sweep": "Gauss and Seidel over the positions of a cell that is causal.",
    "peaceman-rachford": "Splitting, for monotone cells.",
    "douglas-rachford": "Splitting, for monotone cells.",
    "forward-backward": "Splitting without an inverse, for monotone cells.",
    "implicit": "The implicit gradient: an adjoint solve at z*.",
    "phantom": "A few taped, damped steps from z* on.",
    "one-step": "One taped step from z* on (Jacobian-free).",
    "unrolled": "So many taped steps from z0; no solver.",
    "checkpointed": "Unrolled, with every sqrt(steps)-th state kept.",
}
_solvers = make_alternatives("solver", Solver, _ABOUT, __name__)
_gradients = make_alternatives("gradient", Gradient, _ABOUT, __name__)
globals().update(_solvers)
globals().update(_gradients)

_options = "\n\nOptions:\n" + describe_options(_core.equilibrium_options())
equilibrate.__doc__ += _options
equilibrium.__doc__ += _options

atexit.register(_core.end_calls)
os.register_at_fork(after_in_child=_core.forget_calls)

from . import cells  # noqa: E402

__all__ = ["Error", "Gradient", "Layer", "Map", "Model", "Output", "Reason", "Report", "Solver", "SpectralRadius",
           "cells", "equilibrate", "equilibrium", "jacobian_loss", "load", "load_file", "save_file", "solve",
           "spectral_radius", *_solvers, *_gradients]
