"""get_deq and the modules that it makes: torchdeq.core."""

import torch

from .. import _core
from .._options import equilibrium_options
from .dropout import reset_dropout
from .norm import reset_norm
from .solver import Recorded, SolverStat, get_solver, is_own, options_of, stat_of
from .utils import ARGUMENTS, NAMES, DEQConfig, unknown

_DEFAULTS = {name: default for name, default, *_ in ARGUMENTS}
_STAYS = {"solver": "picard", "max_steps": 1, "rel_tol": 0.0, "abs_tol": 1e300}  # a solve that returns its start


class DEQBase(torch.nn.Module):
    """deq(f, z0) -> (states, info): the states of a solve on which there is a gradient, the last its end.

    Arguments are torchdeq's (add_deq_args lists them), from `args` or by keyword.
    """

    def __init__(self, args=None, **kwargs):
        super().__init__()
        self.args = DEQConfig(args, NAMES, **kwargs)
        read = {name: self.args.get(name, default) for name, default in _DEFAULTS.items()}
        for name in ("f_solver", "b_solver", "f_max_iter", "b_max_iter", "f_tol", "b_tol", "f_stop_mode", "b_stop_mode",
                     "tau", "sup_gap", "sup_loc", "n_states", "indexing"):
            setattr(self, name, read[name])
        self.ift = bool(read["ift"] or read["hook_ift"])
        no_stat = self.args.get("no_stat")
        self.no_stat = self.f_solver == "simple_fixed_point_iter" if no_stat is None else no_stat
        self.eval_f_max_iter = read["eval_f_max_iter"] or int(self.f_max_iter * read["eval_factor"])
        self.grad = self._grad_steps(read["grad"])
        get_solver(self.f_solver)
        if not is_own(self.b_solver):
            get_solver(self.b_solver)
            raise _core.Error(f"b_solver = {self.b_solver}, a solver of your own; expected one of deq's for the adjoint")
        self._options(max(self.f_max_iter, 1), {})  # says here what is wrong
        self.steps = self._steps(self.f_max_iter)
        if len(self.grad) not in (1, len(self.steps)):
            raise _core.Error(f"grad = {self.grad} for {len(self.steps)} states; expected one number or one for each")

    @staticmethod
    def _grad_steps(grad):
        steps = [grad] if isinstance(grad, int) else list(grad)
        if not steps or any(type(k) is not int or k < 1 for k in steps):
            raise _core.Error(f"grad = {grad}; expected whole numbers >= 1")
        return steps

    def _steps(self, max_iter):
        """Steps of the solve after which, or of the parts between which, its states are had."""
        raise NotImplementedError

    def _gradient(self, steps):
        """Of deq, for states that deq's solve returns."""
        if not self.ift:
            return {"gradient": "phantom", "gradient_steps": steps, "gradient_damping": self.tau}
        adjoint = options_of(self.b_solver, self.b_tol, self.b_stop_mode, self.b_max_iter, {})
        return {"gradient": "implicit", **{f"gradient_{key}": value for key, value in adjoint.items()}}

    def _options(self, max_iter, kwargs, steps=1):
        forward = options_of(self.f_solver, self.f_tol, self.f_stop_mode, max_iter, kwargs) \
            if is_own(self.f_solver) else _STAYS
        return equilibrium_options({**forward, **self._gradient(steps)})

    def _solve(self, f, z0, max_iter, kwargs):
        """(state, info) without a tape; of no steps the start."""
        if max_iter == 0:
            return z0, SolverStat()
        if not is_own(self.f_solver):
            return self._solve_by_own(f, z0, max_iter, kwargs)
        z, report = _core.solve(f, z0, self._options(max_iter, kwargs))
        return z, self._info(f, z, report)

    def _solve_by_own(self, f, z0, max_iter, kwargs):
        """By a registered solver, which sees one tensor (B, ...)."""
        def flat(z):
            return torch.cat([part.flatten(1) for part in z], 1) if f.several else z

        def parts(z):
            if not f.several:
                return z
            return [part.reshape(like.shape) for part, like in zip(z.split([p[0].numel() for p in z0], 1), z0)]

        with torch.no_grad():
            z, _, info = get_solver(self.f_solver)(lambda z: flat(f(parts(z))), x0=flat(z0), max_iter=max_iter,
                                                   tol=self.f_tol, stop_mode=self.f_stop_mode, **kwargs)
        return parts(z), info

    def _info(self, f, z, report):
        info = stat_of(report, f.norms, final_only=self.no_stat)
        like = z[0] if isinstance(z, (list, tuple)) else z
        return SolverStat({name: value.to(device=like.device, dtype=like.dtype) for name, value in info.items()})

    def _taped_steps(self, f, z, count):
        """States of `count` damped, taped steps from z: those that sup_gap or sup_loc name, or the last."""
        states = []
        several = f.several
        z = [part.detach() for part in z] if several else z.detach()
        for k in range(1, count + 1):
            fz = f(z)
            if self.tau == 1.0:
                z = fz
            elif several:
                z = [self.tau * new + (1 - self.tau) * old for new, old in zip(fz, z)]
            else:
                z = self.tau * fz + (1 - self.tau) * z
            if self.sup_gap > 0 and k % self.sup_gap == 0 or self.sup_gap <= 0 and k in (self.sup_loc or ()):
                states.append(z)
        return states if self.sup_gap > 0 else states + [z]

    def _implicit(self, f, z0, options, writer):
        listener = writer and (lambda report: writer(stat_of(report, [])))
        z, report = _core.equilibrate(f, z0, options, listener)
        return z, report

    def _grad_of(self, index):
        return self.grad[index if len(self.grad) > 1 else 0]

    def _states_with_gradient(self, f, z, index, last, writer):
        """Those of a state that was found without a tape."""
        f.recording = False
        if last and self.ift:
            return [self._implicit(f, z, equilibrium_options({**_STAYS, **self._gradient(1)}), writer)[0]]
        return self._taped_steps(f, z, self._grad_of(index))

    def _end_with_gradient(self, f, z0, max_iter, kwargs, index, writer):
        """The states at the end of one solve, and its info."""
        if self.ift and is_own(self.f_solver) and max_iter > 0:
            z, report = self._implicit(f, z0, self._options(max_iter, kwargs), writer)
            return [z], self._info(f, z, report)
        z, info = self._solve(f, z0, max_iter, kwargs)
        return self._states_with_gradient(f, z, index, True, writer), info

    def _train_states(self, f, z0, steps, kwargs, writer):
        raise NotImplementedError

    def _evaluated(self, f, z0, max_iter, kwargs, writer, sradius_mode):
        """The solve's end itself, with a gradient where a tape is recorded."""
        if torch.is_grad_enabled() and is_own(self.f_solver) and max_iter > 0:
            z, report = self._implicit(f, z0, self._options(max_iter, kwargs, self.grad[-1]), writer)
            info = self._info(f, z, report)
        else:
            z, info = self._solve(f, z0, max_iter, kwargs)
        like = z[0] if f.several else z
        f.recording = False
        info["sradius"] = _core.spectral_radius(f, z, 1280).radius.to(like) if sradius_mode else torch.zeros(1).to(like)
        return [z], info

    def forward(self, func, z_init, solver_kwargs=None, sradius_mode=False, backward_writer=None, **kwargs):
        """z_init: a tensor, or a tuple or list of tensors, of which func gets each as an argument.

        solver_kwargs: f_max_iter and what the forward solver takes (tau, m, ls, LBFGS_thres). backward_writer is
        called from backward with the statistics of the adjoint's solve.
        """
        for name in kwargs:
            raise unknown(name, ["solver_kwargs", "sradius_mode", "backward_writer"], "the call")
        f = Recorded(func, z_init)
        z0 = f.rows(z_init)
        given = dict(solver_kwargs or {})
        max_iter = given.pop("f_max_iter", None)
        if self.training:
            steps = self.steps if max_iter is None else self._steps(int(max_iter))
            states, info = self._train_states(f, z0, steps, given, backward_writer)
        else:
            states, info = self._evaluated(f, z0, self.eval_f_max_iter if max_iter is None else int(max_iter), given, backward_writer,
                                           sradius_mode)
        return [f.shown(z) for z in states], info


class DEQSliced(DEQBase):
    """The solve in parts: each goes on from the state, with its gradient, that the part before left."""

    def _steps(self, max_iter):
        if self.n_states > 1:
            return [int(max_iter // self.n_states)] * self.n_states
        ends = [*(self.indexing or ()), max_iter]
        return [end - start for start, end in zip([0, *ends], ends)]

    def _train_states(self, f, z0, steps, kwargs, writer):
        states, z = [], z0
        for index, max_iter in enumerate(steps):
            f.norms, f.recording = [], True
            if index + 1 == len(steps):
                found, info = self._end_with_gradient(f, z, max_iter, kwargs, index, writer)
            else:
                z, info = self._solve(f, z, max_iter, kwargs)
                found = self._states_with_gradient(f, z, index, False, writer)
            states += found
            z = [part.detach() for part in states[-1]] if f.several else states[-1].detach()
        return states, info


class DEQIndexing(DEQBase):
    """One solve, whose states after some steps get gradients of their own."""

    def _steps(self, max_iter):
        if self.n_states <= 1:
            return [*(self.indexing or ()), max_iter]
        n = max(min(max_iter, self.n_states), 1)
        gap = max_iter // n
        return [max_iter - (n - k) * gap for k in range(1, n + 1)]

    def _train_states(self, f, z0, steps, kwargs, writer):
        if len(steps) == 1:
            return self._end_with_gradient(f, z0, steps[0], kwargs, 0, writer)
        if not is_own(self.f_solver):
            raise _core.Error(f"core = indexing with {len(steps)} states and f_solver = {self.f_solver}, a solver of "
                              "your own; expected one of deq's, or core = sliced")
        at = dict(_core.solve_at_limits(f, z0, self._options(steps[-1], kwargs), steps))
        states = []
        info = self._info(f, *at[steps[-1]])
        for index, limit in enumerate(steps):
            states += self._states_with_gradient(f, at[limit][0], index, index + 1 == len(steps), writer)
        return states, info


_cores = {"sliced": DEQSliced, "indexing": DEQIndexing}


def register_deq(deq_type, core):
    """A class of your own for get_deq(core=deq_type)."""
    _cores[deq_type] = core


def get_deq(args=None, **kwargs):
    """The DEQ module for these arguments: args a dict or an argparse namespace, keywords before it.

    An argument that is not torchdeq's is an error; in a namespace stand a program's own besides.
    """
    config = DEQConfig(args, NAMES, **kwargs)
    core = config.get("core", "sliced")
    if core not in _cores:
        raise _core.Error(f"core = {core!r}; known: {', '.join(_cores)}")
    return _cores[core](config)


def reset_deq(model):
    """Weights normalised anew, dropout masks drawn anew: before each training step."""
    reset_norm(model)
    reset_dropout(model)
