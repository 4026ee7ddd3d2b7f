"""The cells f(z, x) of the core as modules: deq.cells.Transformer(width=64, heads=4) and others.

    cell = deq.cells.Transformer(width=64, heads=4, inner=256)
    layer = deq.Layer(cell, solver=deq.Anderson(scope="causal"), rel_tol=1e-4)
    z = layer(x)                                   # x (batch, positions, width)

A cell is a callable (z, x) -> f(z, x). Its `bind(x)` computes once what does not depend on z, and gives a callable that
the core evaluates without Python.
"""

from . import _core
from ._modules import CoreModule
from ._options import assignments, class_name, describe_options, signature_of


class Cell(CoreModule):
    """f(z, x) of the core. Options by keyword; weights are drawn as N(0, init_std)."""

    name = ""

    def __init__(self, *, init_std=0.02, symbols=0, **options):
        super().__init__()
        self.options = options
        self.symbols = symbols
        _core.check_alternative("cell", self.name, assignments(options))
        self._mirror()
        self._own.initialise(init_std)

    def _make(self):
        texts = {f"cell_{key}": text for key, text in assignments(self.options).items()}
        return _core.Cell({"cell": self.name, **texts}, self.symbols)

    def bind(self, x, past=None):
        """f(., x), x (B, T, input_width), behind past=(states, inputs) of earlier positions, where there are any.

        In training mode dropout masks are drawn here, so that one mask serves a whole solve.
        """
        past_z, past_x = past or (None, None)
        return self._core_module().bind(x, past_z, past_x)

    def forward(self, z, x, past=None):
        """f(z, x)"""
        return self.bind(x, past)(z)

    def output(self, z):
        """What the rest of a model reads of a state."""
        return self._core_module().output(z)

    causal = property(lambda self: self._own.causal, doc="whether position t depends on positions <= t only")
    injects = property(lambda self: self._own.injects, doc="whether f depends on x")
    input_width = property(lambda self: self._own.input_width)
    state_width = property(lambda self: self._own.state_width)
    output_width = property(lambda self: self._own.output_width)

    def extra_repr(self):
        return ", ".join(f"{key}={value!r}" for key, value in self.options.items())


_cells = {}
for _name, _infos in _core.alternatives("cell"):
    _own = {"name": _name, "__doc__": f"The cell '{_name}'.\n\nOptions:\n{describe_options(_infos)}",
            "__module__": __name__, "__signature__": signature_of(_infos)}
    _cells[class_name(_name)] = type(class_name(_name), (Cell,), _own)
globals().update(_cells)

__all__ = ["Cell", *_cells]
