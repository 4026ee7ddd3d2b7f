"""Trained models: deq.load(RUN)."""

import json
from typing import NamedTuple

import torch

from . import _core
from ._modules import CoreModule
from ._options import assignments


class Output(NamedTuple):
    """One batch through a model."""

    z: torch.Tensor  # (B, T, D) the equilibrium, with its tape where one is recorded
    histories: list  # for the segment behind this one
    report: _core.Report  # of the solve


class Model(CoreModule):
    """A trained model of a run folder. `evaluate` gives what `deq eval` does; `eval()` is torch's, the mode."""

    def __init__(self, folder, checkpoint="", device="cpu"):
        super().__init__()
        self._source = (str(folder), checkpoint, str(device))
        self._mirror()
        self.train(False)

    def _make(self):
        return _core.Run(*self._source)

    @property
    def config(self):
        """The run's options by the names of the flags."""
        read = {"bool": lambda text: text == "true", "int": int, "float": float, "text": str, "choice": str,
                "list": lambda text: tuple(int(item) for item in text.split(",") if item)}
        return {key: read[kind](text) for key, text, kind in self._own.config()}

    vocabulary_size = property(lambda self: self._own.vocabulary)

    def forward(self, tokens, histories=None, history=0, **options):
        """tokens (B, T) int64 -> Output, behind `histories`; `history` positions are kept for the next segment.

        Options of the solve and its gradient are the run's, unless they are given (max_steps, rel_tol, gradient, ...).
        """
        return Output(*self._core_module().forward(tokens, histories or [], assignments(options), history))

    def loss(self, z, targets):
        """-log p(target) in nats of targets (B, T); 0 where the target is -1."""
        return self._core_module().loss(z, targets)

    def log_probabilities(self, z):
        """log p of every answer at each position, (B, T, answers)."""
        return self._core_module().log_probabilities(z)

    def encode(self, text):
        """The tokens of a text, (T) int64."""
        return torch.tensor(self._own.encode(text), dtype=torch.long)

    def decode(self, tokens):
        """The text of tokens, a tensor or a list."""
        ids = tokens.tolist() if isinstance(tokens, torch.Tensor) else list(tokens)
        return self._own.decode(ids).decode("utf-8", "replace")

    def generate(self, prompt=None, tokens=100, on_token=None, **options):
        """Continues a text, or a list of texts side by side: (text with its prompt, what it took).

        Each new token costs one solve of one position. Options: temperature, top_k, top_p, greedy, seed (0: another one
        each time), history, weight_type, and those of the solve; max_steps is 100 at least unless it is given.
        `on_token(text, token)` hears of each token, and ends the texts by returning False. Without a prompt a text
        begins behind the end of a line.
        """
        several = isinstance(prompt, (list, tuple))
        prompts = list(prompt) if several else [prompt]
        ids = [self._own.encode("\n" if text is None or text == "" else text) for text in prompts]
        for text, given in zip(prompts, ids):
            if not given:
                raise _core.Error(f"the prompt {text!r} has no token; expected at least one")
        texts, report = self._core_module().generate(ids, assignments({"tokens": tokens, **options}), on_token)
        texts = [(text or "") + self._own.continuation(before[-1], new).decode("utf-8", "replace")
                 for text, before, new in zip(prompts, ids, texts)]
        return (texts if several else texts[0]), report

    def evaluate(self, split="valid", data="", **options):
        """What `deq eval --json` prints of a split of the run's data, or of other data: a dict.

        Options are those of the solve, of the evaluation (eval_lanes, eval_length, ...) and of the task.
        """
        return json.loads(self._core_module().evaluate(split, str(data), assignments(options)))


def load(run, checkpoint="", device="cpu"):
    """The trained model of a run folder, in evaluation mode: its best weights, or "last"."""
    return Model(run, checkpoint, device)


def save_file(tensors, path, metadata=None):
    """Writes {name: tensor} as a safetensors file, whole or not at all."""
    _core.save_tensors(str(path), dict(tensors), dict(metadata or {}))


def load_file(path):
    """{name: tensor} of a safetensors file."""
    return _core.load_tensors(str(path))[0]
