"""Weights that are normalised once for a whole solve: torchdeq.norm.

w = v * factor, factor = g / |v| (with `clip` at most clip_value); |.| is the norm of each unit's weights, or for
spectral_norm the largest singular value, by power iteration. reset_norm computes w anew, within the tape.
"""

import torch
from torch import nn

from .. import _core
from .utils import ARGUMENTS, DEQConfig, unknown

_KEYWORDS = ["names", "dims", "learn_scale", "target_norm", "clip", "clip_value", "n_power_iterations", "eps"]
_ARGS = [name for name, *_ in ARGUMENTS]
_TARGETS = {nn.Linear: ("weight", 0), nn.Conv1d: ("weight", 0), nn.Conv2d: ("weight", 0), nn.Conv3d: ("weight", 0),
            nn.ConvTranspose1d: ("weight", 1), nn.ConvTranspose2d: ("weight", 1), nn.ConvTranspose3d: ("weight", 1)}


class _Norm:
    """What the norms share: options, and a call for each weight of a module."""

    def __init__(self, names, dims, learn_scale, target_norm, clip, clip_value, n_power_iterations, eps):
        self.weights = list(zip(names, dims))
        self.learn_scale, self.target_norm = learn_scale, target_norm
        self.clip, self.clip_value = clip, clip_value
        self.n_power_iterations, self.eps = n_power_iterations, eps

    @classmethod
    def apply(cls, module, deq_args=None, names=None, dims=None, learn_scale=True, target_norm=1.0, clip=False,
              clip_value=1.0, n_power_iterations=1, eps=1e-12):
        args = DEQConfig(deq_args)
        if names is None or dims is None:
            names, dims = cls._target_modules[type(module)]
        names = [names] if isinstance(names, str) else names
        dims = [dims] if isinstance(dims, int) else dims
        if len(names) != len(dims):
            raise _core.Error(f"names = {names}, dims = {dims}; expected as many of both")
        iterations = args.get("sn_n_power_iters", n_power_iterations)
        if iterations < 1:
            raise _core.Error(f"sn_n_power_iters = {iterations}; expected >= 1")
        norm = cls(names, dims, not args.get("norm_no_scale", not learn_scale),
                   args.get("norm_target_norm", target_norm), args.get("norm_clip", clip),
                   args.get("norm_clip_value", clip_value), iterations, eps)
        for name, dim in norm.weights:
            norm.install(module, name, dim)
        return norm

    def __call__(self, module):
        for name, dim in self.weights:
            setattr(module, name, self.weight(module, name, dim, module.training))

    def factor(self, module, name, size):
        """g / size, clipped."""
        factor = (getattr(module, name + "_g") if self.learn_scale else self.target_norm) / size
        return factor.clamp(max=self.clip_value) if self.clip else factor

    def remove(self, module):
        for name, dim in self.weights:
            with torch.no_grad():
                weight = self.weight(module, name, dim, False).detach().clone()
            delattr(module, name)
            for suffix in self.suffixes:
                if hasattr(module, name + suffix):
                    delattr(module, name + suffix)
            module.register_parameter(name, nn.Parameter(weight))


def _rows(weight, dim):
    """(units, numbers of each)"""
    return weight.transpose(0, dim).flatten(1)


def _beside(values, weight, dim):
    """(units) in the shape that multiplies the weight unit by unit."""
    return values.reshape([-1 if d == dim else 1 for d in range(weight.dim())])


class WeightNorm(_Norm):
    """Salimans and Kingma 2016."""

    _target_modules = dict(_TARGETS)
    suffixes = ("_g", "_v")

    def install(self, module, name, dim):
        weight = module._parameters.pop(name)
        if self.learn_scale:
            size = _beside(_rows(weight.detach(), dim).norm(dim=1), weight, dim)
            module.register_parameter(name + "_g", nn.Parameter(size.clone()))
        module.register_parameter(name + "_v", nn.Parameter(weight.detach()))
        setattr(module, name, self.weight(module, name, dim, True))

    def weight(self, module, name, dim, training):
        v = getattr(module, name + "_v")
        return v * self.factor(module, name, _beside(_rows(v, dim).norm(dim=1), v, dim))


class SpectralNorm(_Norm):
    """Miyato et al. 2018."""

    _target_modules = dict(_TARGETS)
    suffixes = ("_g", "_orig", "_u", "_v")

    def install(self, module, name, dim):
        weight = module._parameters.pop(name)
        units, numbers = _rows(weight, dim).shape
        module.register_parameter(name + "_orig", weight)
        if self.learn_scale:
            scale = _beside(weight.new_full((units,), float(self.target_norm)), weight, dim)
            module.register_parameter(name + "_g", nn.Parameter(scale))
        for suffix, size in (("_u", units), ("_v", numbers)):
            start = nn.functional.normalize(torch.randn(size, dtype=weight.dtype, device=weight.device), dim=0)
            module.register_buffer(name + suffix, start)
        setattr(module, name, weight.detach())

    def weight(self, module, name, dim, training):
        weight = getattr(module, name + "_orig")
        rows = _rows(weight, dim)
        u, v = getattr(module, name + "_u"), getattr(module, name + "_v")
        if training:
            with torch.no_grad():
                for _ in range(self.n_power_iterations):
                    v.copy_(nn.functional.normalize(rows.T @ u, dim=0, eps=self.eps))
                    u.copy_(nn.functional.normalize(rows @ v, dim=0, eps=self.eps))
            u, v = u.clone(), v.clone()  # a tape keeps these, the buffers go on
        return weight * self.factor(module, name, u @ rows @ v)


_norms = {"weight_norm": WeightNorm, "spectral_norm": SpectralNorm}


def _norm_class(norm_type):
    if norm_type not in _norms:
        raise _core.Error(f"norm_type = {norm_type!r}; known: none, {', '.join(_norms)}")
    return _norms[norm_type]


def register_norm(norm_type, norm_class):
    """A norm of your own: a class with apply(module, deq_args, ...), _target_modules, a call, and remove."""
    _norms[norm_type] = norm_class


def register_norm_module(module_class, norm_type, names="weight", dims=0):
    """Another class of modules whose weights that norm takes."""
    _norm_class(norm_type)._target_modules[module_class] = (names, dims)


def _skipped(name, prefixes, parts):
    def listed(given):
        return [given] if isinstance(given, str) else (given or ())

    return any(name.startswith(one) for one in listed(prefixes)) or any(one in name for one in listed(parts))


def apply_norm(model, norm_type="weight_norm", prefix_filter_out=None, filter_out=None, args=None, **norm_kwargs):
    """Normalises the weights of all linear and convolutional modules of a model, but those that are filtered out."""
    for name in norm_kwargs:
        if name not in _KEYWORDS + _ARGS:
            raise unknown(name, _KEYWORDS + _ARGS, "apply_norm")
    keywords = {name: value for name, value in norm_kwargs.items() if name in _KEYWORDS}
    config = DEQConfig(args, _ARGS, **{name: value for name, value in norm_kwargs.items() if name in _ARGS})
    norm_type = config.get("norm_type", norm_type)
    if norm_type == "none":
        return
    norm_class = _norm_class(norm_type)
    for name, module in model.named_modules():
        if type(module) in norm_class._target_modules and not _skipped(name, prefix_filter_out, filter_out):
            module._deq_norm = norm_class.apply(module, deq_args=config, **keywords)


def reset_norm(model):
    """Computes all normalised weights anew, with their tape: before each solve that is trained through."""
    for module in model.modules():
        if hasattr(module, "_deq_norm"):
            module._deq_norm(module)


def remove_norm(model):
    """Leaves the weights as they are, as plain parameters."""
    for module in model.modules():
        if hasattr(module, "_deq_norm"):
            module._deq_norm.remove(module)
            del module._deq_norm
