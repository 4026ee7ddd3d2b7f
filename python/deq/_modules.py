"""Modules of the core as modules of Python's torch, over the same memory."""

import torch

from . import _core


class CoreModule(torch.nn.Module):
    """A module whose parameters and buffers are those of one in the core, under its names.

    Optimisers, state_dict, .grad, .to() and requires_grad_ work on them; to put another tensor in a parameter's place
    is an error at the next call.
    """

    def _make(self):
        """The core's module, anew."""
        raise NotImplementedError

    def _mirror(self):
        """Registers the core's tensors; what is registered already gives them its values."""
        self._own = self._make()
        self._mirrored = []
        for name, tensor, is_parameter in self._own.named_tensors():
            *path, leaf = name.split(".")
            node = self
            for part in path:
                node = node._modules.setdefault(part, torch.nn.Module())
            place = node._parameters if is_parameter else node._buffers
            before = place.get(leaf)
            if before is not None:
                tensor.data = before.data
                tensor.requires_grad_(before.requires_grad)
                tensor.grad = before.grad
            if is_parameter:
                tensor.__class__ = torch.nn.Parameter
            place[leaf] = tensor
            self._mirrored.append((place, leaf, tensor, name))
        self._own.train(self.training)

    def _core_module(self):
        for place, leaf, tensor, name in self._mirrored:
            if place.get(leaf) is not tensor:
                raise _core.Error(f"parameter '{name}' was replaced by another tensor; expected it written in place, "
                                  "as by copy_() or load_state_dict()")
        return self._own

    def train(self, mode=True):
        super().train(mode)
        self._own.train(mode)
        return self

    def _apply(self, fn, *args, **kwargs):
        super()._apply(fn, *args, **kwargs)
        for place, leaf, tensor, _ in self._mirrored:
            new = place[leaf]
            if new is not tensor:
                tensor.data = new.data
                place[leaf] = tensor
        return self

    def __getstate__(self):
        state = self.__dict__.copy()
        del state["_own"], state["_mirrored"]
        return state

    def __setstate__(self, state):
        self.__dict__.update(state)
        self._mirror()
