"""z* = f(z*) of any f, its gradient and what its Jacobian says."""

from . import _core
from ._options import equilibrium_options


def equilibrate(f, z0, *, on_adjoint=None, **options):
    """z* = f(z*) from z0, with gradients to whatever f captured, and how it was found: (z, report).

    f: a callable z -> f(z), of the shape, type and device of z. z0: a tensor (B, ...), or a tuple or list of tensors with
    one batch; f is then given, and returns, the same. Gradients do not depend on train or eval mode, only on whether a
    tape is recorded; that with respect to z0 is zero. Nothing is raised for a solve that does not converge: ask `report`
    (`report.converged`, `str(report)`), and after backward `report.adjoint`. `on_adjoint` is called from backward with
    the report of the adjoint's solve.
    """
    return _core.equilibrate(f, z0, equilibrium_options(options), on_adjoint)


def equilibrium(f, z0, *, on_adjoint=None, **options):
    """z of `equilibrate`, without the report."""
    return _core.equilibrate(f, z0, equilibrium_options(options), on_adjoint)[0]


def solve(f, z0, **options):
    """z* = f(z*) from z0 without a tape: (z, report). Options are those of `equilibrate` that concern the solve."""
    for key in options:
        if key == "gradient" or key.startswith("gradient_"):
            raise _core.Error(f"{key} is not an option of solve, which records no tape; expected deq.equilibrate")
    return _core.solve(f, z0, equilibrium_options(options))


def jacobian_loss(f, z, probes=1):
    """Hutchinson's estimate of |df/dz|_F^2 / n at z, n the numbers of z: a scalar, differentiable by what f captured.

    z itself is held fixed. f must be twice differentiable.
    """
    return _core.jacobian_loss(f, z, probes)


def spectral_radius(f, z, max_products=1280):
    """The spectral radius of df/dz for each sample, by Arnoldi's method: a SpectralRadius. Ask `converged`."""
    return _core.spectral_radius(f, z, max_products)
