"""An equilibrium as a module among others."""

import torch

from . import _core
from ._options import equilibrium_options


class Layer(torch.nn.Module):
    """z = f(z, x, ...) as a module: layer(x, ...) gives z.

    f: a callable (z, *inputs) -> f(z, *inputs); a module is registered as `f`, with its parameters. z0: where the solve
    starts; zeros like x unless it is given, as wide as a cell's state. Options as of `equilibrate`. Nothing of a call is kept: `equilibrate`
    gives the report besides.
    """

    def __init__(self, f, **options):
        super().__init__()
        equilibrium_options(options)  # says here what is wrong with them
        self.f = f
        self.options = options

    def forward(self, *inputs, z0=None):
        return self.equilibrate(*inputs, z0=z0)[0]

    def equilibrate(self, *inputs, z0=None, on_adjoint=None):
        """(z, report)"""
        if z0 is None:
            if not inputs or not isinstance(inputs[0], torch.Tensor):
                raise _core.Error("a layer without a tensor as input and without z0; expected one of the two")
            x = inputs[0]
            z0 = x.new_zeros(*x.shape[:-1], getattr(self.f, "state_width", x.shape[-1]))
        bound = self.f.bind(*inputs) if hasattr(self.f, "bind") else lambda z: self.f(z, *inputs)
        return _core.equilibrate(bound, z0, equilibrium_options(self.options), on_adjoint)

    def extra_repr(self):
        return ", ".join(f"{key}={value!r}" for key, value in self.options.items())
