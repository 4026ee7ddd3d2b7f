# Written by python3 -m deq._stubs: options are those of the core.
from typing import Any, Dict, Literal, Optional, Sequence, Tuple

import torch
from torch import Tensor

from . import Map

class Cell(torch.nn.Module):
    name: str
    options: Dict[str, Any]
    causal: bool
    injects: bool
    input_width: int
    state_width: int
    output_width: int
    def bind(self, x: Tensor, past: Optional[Tuple[Tensor, Tensor]] = ...) -> Map: ...
    def forward(self, z: Tensor, x: Tensor, past: Optional[Tuple[Tensor, Tensor]] = ...) -> Tensor: ...
    def output(self, z: Tensor) -> Tensor: ...

class Transformer(Cell):
    def __init__(self, *,
                 init_std: float = 0.02,
                 symbols: int = 0,
                 width: int = 128,
                 heads: int = 4,
                 inner: int = 512,
                 norm: Literal["post", "pre", "pre-published"] = 'post',
                 window: int = 0,
                 causal: bool = True,
                 weight_norm: bool = True,
                 dimensions: int = 1,
                 dropout_hidden: float = 0.0,
                 dropout_attention: float = 0.0) -> None: ...

class Trellisnet(Cell):
    def __init__(self, *,
                 init_std: float = 0.02,
                 symbols: int = 0,
                 hidden: int = 200,
                 output: int = 100,
                 input: int = 0,
                 kernel: int = 2,
                 causal: bool = True,
                 dilation: int = 1,
                 weight_norm: bool = True,
                 dropout_hidden: float = 0.0,
                 dropout_weight: float = 0.0) -> None: ...

class Lstm(Cell):
    def __init__(self, *,
                 init_std: float = 0.02,
                 symbols: int = 0,
                 width: int = 128,
                 dropout: float = 0.0) -> None: ...

class Gru(Cell):
    def __init__(self, *,
                 init_std: float = 0.02,
                 symbols: int = 0,
                 width: int = 128,
                 dropout: float = 0.0) -> None: ...

class Tcn(Cell):
    def __init__(self, *,
                 init_std: float = 0.02,
                 symbols: int = 0,
                 width: int = 32,
                 kernel: int = 8,
                 dropout: float = 0.0,
                 weight_norm: bool = True) -> None: ...

class StackRnn(Cell):
    def __init__(self, *,
                 init_std: float = 0.02,
                 symbols: int = 0,
                 width: int = 64,
                 stacks: int = 1,
                 stack_depth: int = 128,
                 stack_width: int = 16,
                 reads: int = 1,
                 dropout: float = 0.0) -> None: ...

class Ntm(Cell):
    def __init__(self, *,
                 init_std: float = 0.02,
                 symbols: int = 0,
                 width: int = 100,
                 controller: Literal["lstm", "feedforward"] = 'lstm',
                 slots: int = 128,
                 slot_width: int = 20,
                 read_heads: int = 1,
                 write_heads: int = 1,
                 shift: int = 1,
                 dropout: float = 0.0) -> None: ...

class Shift(Cell):
    def __init__(self, *,
                 init_std: float = 0.02,
                 symbols: int = 0,
                 width: int = 64,
                 inner: int = 128,
                 meeting: Literal["additive", "bilinear"] = 'bilinear') -> None: ...

class Conv(Cell):
    def __init__(self, *,
                 init_std: float = 0.02,
                 symbols: int = 0,
                 width: int = 32,
                 kernel: int = 3,
                 convolutions: int = 3,
                 dimensions: int = 1,
                 norm: Literal["none", "rms"] = 'rms') -> None: ...

class Groups(Cell):
    def __init__(self, *,
                 init_std: float = 0.02,
                 symbols: int = 0,
                 width: int = 16,
                 inner: int = 64,
                 groups: str = 'row+column,box') -> None: ...

class Monotone(Cell):
    def __init__(self, *,
                 init_std: float = 0.02,
                 symbols: int = 0,
                 width: int = 87,
                 input: int = 0,
                 margin: float = 1.0,
                 activation: Literal["relu", "tanh", "sigmoid", "softplus"] = 'relu',
                 direct: int = 64) -> None: ...

class MonotoneConv(Cell):
    def __init__(self, *,
                 init_std: float = 0.02,
                 symbols: int = 0,
                 width: int = 54,
                 input: int = 0,
                 kernel: int = 3,
                 dimensions: int = 1,
                 margin: float = 1.0,
                 activation: Literal["relu", "tanh", "sigmoid", "softplus"] = 'relu') -> None: ...

class WellPosed(Cell):
    def __init__(self, *,
                 init_std: float = 0.02,
                 symbols: int = 0,
                 width: int = 64,
                 input: int = 0,
                 kappa: float = 0.95,
                 condition: Literal["infinity-norm", "perron-frobenius"] = 'infinity-norm',
                 activation: Literal["relu", "tanh", "sigmoid", "softplus"] = 'relu',
                 direct: int = 64) -> None: ...

class Energy(Cell):
    def __init__(self, *,
                 init_std: float = 0.02,
                 symbols: int = 0,
                 of: Literal["conv", "groups", "attention", "hopfield"] = 'conv',
                 step: float = 0.25,
                 step_spread: float = 1.0,
                 dimensions: int = 1) -> None: ...

class Maxsat(Cell):
    def __init__(self, *,
                 init_std: float = 0.02,
                 symbols: int = 0,
                 places: int = 81,
                 auxiliary: int = 300,
                 clauses: int = 600,
                 memory: int = 5) -> None: ...

class MaxsatChain(Cell):
    def __init__(self, *,
                 init_std: float = 0.02,
                 symbols: int = 0,
                 auxiliary: int = 4,
                 clauses: int = 4,
                 memory: int = 5,
                 trial: int = 30) -> None: ...

class Optnet(Cell):
    def __init__(self, *,
                 init_std: float = 0.02,
                 symbols: int = 0,
                 places: int = 16,
                 equalities: int = 40,
                 penalty: float = 0.1,
                 sharpness: float = 10.0) -> None: ...
