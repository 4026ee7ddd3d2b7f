"""Losses on several states, and on the Jacobian: torchdeq.loss."""

import torch

from .. import _core

_weights = {
    "exp": lambda n, k, gamma=0.8: gamma ** (n - k - 1),
    "linear": lambda n, k, gamma=0.9, bias=0.0: 1 - (n - k - 1) / n * gamma + bias,
    "const": lambda n, k, c=1.0: c,
}


def register_weight_func(name, func):
    """A weight of your own for fp_correction: func(n, k, ...) -> the weight of the k-th of n losses."""
    if not callable(func):
        raise _core.Error(f"func is of type {type(func).__name__}; expected a callable")
    _weights[name] = func


def fp_correction(crit, args, weight_func="exp", return_loss_values=False, **kwargs):
    """The weighted sum of crit over states that converge: args are lists of as many, or what is the same for all.

    weight_func: exp, gamma^(n-k-1) [gamma 0.8]; linear, 1 - (n-k-1)/n gamma + bias [0.9, 0]; const, c [1].
    """
    if weight_func not in _weights:
        raise _core.Error(f"weight_func = {weight_func!r}; known: {', '.join(_weights)}")
    lists = [arg if isinstance(arg, (list, tuple)) else [arg] for arg in args]
    count = max(len(one) for one in lists)
    losses = [crit(*(one[k % len(one)] for one in lists)) for k in range(count)]
    total = sum(_weights[weight_func](count, k, **kwargs) * loss for k, loss in enumerate(losses))
    return (total, [loss.item() for loss in losses]) if return_loss_values else total


def jac_reg(f0, z0, vecs=1, create_graph=True):
    """Hutchinson's estimate of |J|_F^2 / n from the tape f0 = f(z0), n the numbers of z0."""
    total = 0
    for _ in range(vecs):
        (product,) = torch.autograd.grad(f0, z0, torch.randn_like(z0), retain_graph=True, create_graph=create_graph)
        total = total + product.pow(2).sum()
    return total / vecs / z0.numel()


def power_method(f0, z0, n_iters=100):
    """(vector, radius (B)) of J from the tape f0 = f(z0).

    The radius is the mean growth of the last half of the products, which pairs of complex eigenvalues have too;
    deq.spectral_radius is exact, and says whether it has converged.
    """
    shape = [-1] + [1] * (z0.dim() - 1)
    v = torch.randn_like(z0)
    growth = []
    for k in range(n_iters):
        v = v / v.flatten(1).norm(dim=1).view(shape)
        (v,) = torch.autograd.grad(f0, z0, v, retain_graph=True)
        if 2 * k >= n_iters - 1:
            growth.append(v.flatten(1).norm(dim=1).log())
    return v, torch.stack(growth).mean(0).exp()
