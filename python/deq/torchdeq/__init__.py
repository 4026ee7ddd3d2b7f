"""torchdeq's names and defaults over deq's solvers: `from deq.torchdeq import get_deq` in place of `from torchdeq`.

    deq = get_deq(f_solver="anderson", ift=True)
    z_out, info = deq(f, z0)

What differs is in docs/python.md: an argument that torchdeq passes over, or that deq lacks, is an error; a gradient is
there in evaluation mode too; every residual in `info` is that of the state that is returned.
"""

from .core import DEQIndexing, DEQSliced, get_deq, register_deq, reset_deq
from .dropout import (VariationalDropout, VariationalDropout1d, VariationalDropout2d, VariationalDropout3d,
                      VariationalDropToken1d, VariationalDropToken2d, VariationalDropToken3d, reset_dropout)
from .loss import fp_correction, jac_reg, power_method, register_weight_func
from .norm import apply_norm, register_norm, register_norm_module, remove_norm, reset_norm
from .solver import get_solver, register_solver, solver_stat_from_final_step
from .utils import add_deq_args, mem_gc, mixed_init

__all__ = ["DEQIndexing", "DEQSliced", "VariationalDropToken1d", "VariationalDropToken2d", "VariationalDropToken3d",
           "VariationalDropout", "VariationalDropout1d", "VariationalDropout2d", "VariationalDropout3d", "add_deq_args",
           "apply_norm", "fp_correction", "get_deq", "get_solver", "jac_reg", "mem_gc", "mixed_init", "power_method",
           "register_deq", "register_norm", "register_norm_module", "register_solver", "register_weight_func",
           "remove_norm", "reset_deq", "reset_dropout", "reset_norm", "solver_stat_from_final_step"]
