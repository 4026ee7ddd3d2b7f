"""Dropout whose mask stays as it is while a solve goes on: torchdeq.dropout."""

import torch

from .. import _core


class VariationalDropout(torch.nn.Module):
    """One mask, drawn at the first call in training mode after reset_dropout: by number."""

    def __init__(self, dropout=0.5):
        super().__init__()
        if not 0 <= dropout < 1:
            raise _core.Error(f"dropout = {dropout}; expected in [0, 1)")
        self.dropout = dropout
        self.mask = None

    def mask_shape(self, x):
        return x.shape

    def forward(self, x):
        if not self.training or self.dropout == 0:
            return x
        if self.mask is None:
            keep = torch.full(self.mask_shape(x), 1 - self.dropout, dtype=x.dtype, device=x.device)
            self.mask = torch.bernoulli(keep) / keep
        return x * self.mask

    def extra_repr(self):
        return f"dropout={self.dropout}"


class _Folded(VariationalDropout):
    """A mask of some dimensions for inputs of `dimensions` besides batch and features."""

    dimensions = 1
    of_tokens = False

    def __init__(self, dropout=0.5, token_first=True):
        super().__init__(dropout)
        self.token_first = token_first

    def mask_shape(self, x):
        if x.dim() != self.dimensions + 2:
            raise _core.Error(f"{type(self).__name__}: an input of shape {list(x.shape)}; "
                              f"expected {self.dimensions + 2} dimensions")
        features = x.dim() - 1 if self.token_first else 1
        kept = [d for d in range(1, x.dim()) if (d == features) != self.of_tokens]
        return [size if d == 0 or d in kept else 1 for d, size in enumerate(x.shape)]


def _made(name, dimensions, of_tokens):
    what = "positions" if of_tokens else "features"
    about = (f"A mask of whole {what}, of (B, ..., D) with {dimensions} dimension(s) between; "
             "token_first=False: of (B, D, ...).")
    return type(name, (_Folded,), {"dimensions": dimensions, "of_tokens": of_tokens, "__doc__": about,
                                   "__module__": __name__})


VariationalDropout1d = _made("VariationalDropout1d", 1, False)
VariationalDropout2d = _made("VariationalDropout2d", 2, False)
VariationalDropout3d = _made("VariationalDropout3d", 3, False)
VariationalDropToken1d = _made("VariationalDropToken1d", 1, True)
VariationalDropToken2d = _made("VariationalDropToken2d", 2, True)
VariationalDropToken3d = _made("VariationalDropToken3d", 3, True)


def reset_dropout(model):
    """Masks are drawn anew at the next call."""
    for module in model.modules():
        if isinstance(module, VariationalDropout):
            module.mask = None
