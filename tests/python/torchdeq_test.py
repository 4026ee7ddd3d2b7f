"""deq.torchdeq: torchdeq's documented examples with one import changed, its arguments and its info."""

import argparse
import unittest

import torch
from torch import nn

import deq
from deq.torchdeq import (add_deq_args, apply_norm, fp_correction, get_deq, get_solver, jac_reg, mem_gc, mixed_init,
                          power_method, register_deq, register_norm_module, register_solver, remove_norm, reset_deq,
                          reset_norm)
from deq.torchdeq.core import DEQSliced
from deq.torchdeq.dropout import VariationalDropout, VariationalDropout1d, VariationalDropToken2d
from deq.torchdeq.solver import anderson_solver, broyden_solver, fixed_point_iter, simple_fixed_point_iter

torch.set_default_dtype(torch.double)
W = torch.eye(4) * 0.4
X = torch.linspace(-1, 1, 12).reshape(3, 4)


def problem():
    w = (W + 0.1).requires_grad_()
    return w, lambda z: torch.tanh(z @ w + X)


def exact(f, z0, steps=300):
    for _ in range(steps):
        z0 = f(z0)
    return z0


class Examples(unittest.TestCase):
    """Those of its pages and docstrings."""

    def test_solvers(self):
        half = lambda z: 0.5 * (z + 2 / z)  # noqa: E731
        for solver in (anderson_solver, broyden_solver):
            z, states, info = solver(half, torch.tensor(1.0))
            self.assertLess((z - half(z)).norm(p=1), 1e-3)
            self.assertEqual((z.shape, states), ((), []))
        for solver in (fixed_point_iter, simple_fixed_point_iter):
            z, _, info = solver(torch.cos, torch.tensor(0.0))
            self.assertLess((z - torch.cos(z)).norm(p=1), 1e-3)
        self.assertIs(get_solver("anderson"), anderson_solver)
        z, states, _ = anderson_solver(half, torch.full((2, 3), 5.0), indexing=[2, 4])
        self.assertEqual([state.shape for state in states], [(2, 3)] * 2)
        self.assertLess((states[1] - z).abs().max(), (states[0] - z).abs().max())

    def test_get_deq(self):
        self.assertIsInstance(get_deq(core="sliced"), DEQSliced)
        self.assertIsInstance(get_deq(argparse.Namespace(core="sliced", lr=0.1)), DEQSliced)

        class Custom(DEQSliced):
            pass

        register_deq("custom", Custom)
        self.assertIsInstance(get_deq(core="custom"), Custom)

    def test_several_equilibria(self):
        def fn(a, b, c):
            return torch.cos(a), 0.5 * torch.sin(b) + 0.1 * a, 0.3 * c + 0.01 * b.mean(1, keepdim=True)

        z_out, info = get_deq()(fn, (torch.zeros(2, 3), torch.zeros(2, 3), torch.zeros(2, 3)))
        self.assertEqual(len(z_out), 1)
        a, b, c = z_out[-1]
        self.assertLess((torch.cos(a) - a).norm(), 2e-3)
        self.assertEqual(info["rel_lowest"].shape, (2,))

    def test_sample_code(self):
        class DEQFunc(nn.Module):
            def __init__(self, args):
                super().__init__()
                self.linear = nn.Linear(4, 4)

            def forward(self, z, x):
                return torch.tanh(0.5 * self.linear(z) + x)

        class DEQDemo(torch.nn.Module):
            def __init__(self, args):
                super().__init__()
                self.deq_func = DEQFunc(args)
                apply_norm(self.deq_func, args=args)
                self.deq = get_deq(args)

            def forward(self, x, z0):
                reset_norm(self.deq_func)
                f = lambda z: self.deq_func(z, x)  # noqa: E731
                return self.deq(f, z0)

        parser = argparse.ArgumentParser()
        add_deq_args(parser)
        for flags in ([], ["--ift"], ["--ift", "--f_solver", "anderson", "--b_solver", "broyden"],
                      ["--norm_type", "spectral_norm", "--core", "indexing"], ["--n_states", "2", "--grad", "2", "1"]):
            args = parser.parse_args(flags)
            torch.manual_seed(0)
            inj, net, decoder = nn.Linear(4, 4), DEQDemo(args), nn.Linear(4, 1)
            opt = torch.optim.Adam([*inj.parameters(), *net.parameters(), *decoder.parameters()], lr=0.02)
            losses = []
            for _ in range(25):
                opt.zero_grad()
                z_out, info = net(inj(X), torch.randn(3, 4))
                loss = (decoder(z_out[-1]) - X.sum(1, keepdim=True)).pow(2).mean()
                loss.backward()
                opt.step()
                losses.append(loss.item())
                self.assertLess(info["abs_lowest"].mean().item(), 2e-3)
                self.assertLess(info["rel_lowest"].mean().item(), 2e-3)
            self.assertLess(losses[-1], 0.5 * losses[0], flags)

    def test_correction(self):
        x = [torch.randn(16, 8, 8) for _ in range(3)]
        y, mask = torch.randn(16, 8, 8), torch.rand(16, 8, 8)
        crit = lambda x, y, mask: ((x - y) * mask).abs().mean()  # noqa: E731
        loss, values = fp_correction(crit, (x, y, mask), return_loss_values=True)
        wanted = [crit(one, y, mask).item() for one in x]
        self.assertAlmostEqual(loss.item(), 0.64 * wanted[0] + 0.8 * wanted[1] + wanted[2], places=5)
        self.assertEqual(values, wanted)
        linear = fp_correction(crit, (x, y, mask), weight_func="linear").item()
        self.assertAlmostEqual(linear, 0.4 * wanted[0] + 0.7 * wanted[1] + wanted[2], places=5)
        self.assertAlmostEqual(fp_correction(crit, (x, y, mask), "const", c=2.0).item(), 2 * sum(wanted), places=5)

    def test_reset_deq(self):
        layer = nn.Sequential(nn.Linear(4, 4), VariationalDropout(0.5))
        apply_norm(layer)
        reset_deq(layer)
        first = layer(X)
        self.assertTrue(layer(X).equal(first))
        torch.manual_seed(3)
        reset_deq(layer)
        self.assertFalse(layer(X).equal(first))


class Gradients(unittest.TestCase):
    def test_ift_is_exact(self):
        for core in ("sliced", "indexing"):
            for f_solver in ("fixed_point_iter", "anderson", "broyden"):
                for b_solver in ("fixed_point_iter", "anderson", "broyden", "simple_fixed_point_iter"):
                    w, f = problem()
                    deq_ = get_deq(core=core, ift=True, f_solver=f_solver, b_solver=b_solver, f_tol=1e-9, f_max_iter=200)
                    z_out, _ = deq_(f, torch.zeros(3, 4))
                    (got,) = torch.autograd.grad(z_out[-1].sum(), w)
                    (want,) = torch.autograd.grad(exact(f, torch.zeros(3, 4)).sum(), w)
                    self.assertLess((got - want).abs().max().item(), 1e-4 * want.abs().max().item())

    def test_phantom_steps(self):
        for grad, tau in ((1, 1.0), (3, 1.0), (4, 0.6)):
            w, f = problem()
            z_out, _ = get_deq(grad=grad, tau=tau, f_tol=1e-9, f_max_iter=200)(f, torch.zeros(3, 4))
            z = exact(f, torch.zeros(3, 4)).detach()
            for _ in range(grad):
                z = (1 - tau) * z + tau * f(z)
            (got,), (want,) = torch.autograd.grad(z_out[0].sum(), w), torch.autograd.grad(z.sum(), w)
            self.assertLess((got - want).abs().max().item(), 1e-4)

    def test_states_among_taped_steps(self):
        w, f = problem()
        for options, places in (({"sup_gap": 2}, [2, 4, 6]), ({"sup_loc": [1, 3]}, [1, 3, 6])):
            z_out, _ = get_deq(f_max_iter=0, grad=6, **options)(f, torch.zeros(3, 4))
            for z, k in zip(z_out, places):
                self.assertLess((z - exact(f, torch.zeros(3, 4), k)).abs().max().item(), 1e-12)

    def test_evaluation_mode_has_the_same_damping(self):
        w, f = problem()
        z_out, _ = get_deq(f_tol=1e-9, f_max_iter=200, grad=3, tau=0.5).eval()(f, torch.zeros(3, 4))
        z = exact(f, torch.zeros(3, 4)).detach()
        self.assertLess((z_out[0] - z).abs().max().item(), 1e-7)
        for _ in range(3):
            z = 0.5 * z + 0.5 * f(z)
        (got,), (want,) = torch.autograd.grad(z_out[0].sum(), w), torch.autograd.grad(z.sum(), w)
        self.assertLess((got - want).abs().max().item(), 1e-6)

    def test_no_solve_but_unrolled_steps(self):
        w, f = problem()
        z_out, info = get_deq(f_max_iter=0, grad=7)(f, torch.zeros(3, 4))
        self.assertLess((z_out[0] - exact(f, torch.zeros(3, 4), 7)).abs().max().item(), 1e-12)
        (got,) = torch.autograd.grad(z_out[0].sum(), w)
        (want,) = torch.autograd.grad(exact(f, torch.zeros(3, 4), 7).sum(), w)
        self.assertLess((got - want).abs().max().item(), 1e-12)

    def test_states(self):
        w, f = problem()
        z0 = torch.zeros(3, 4)
        for core, options, count in (("sliced", {"n_states": 3}, 3), ("indexing", {"n_states": 3}, 3),
                                     ("indexing", {"indexing": [2, 5]}, 3), ("sliced", {"indexing": [2, 5]}, 3),
                                     ("sliced", {"grad": 6, "sup_gap": 2}, 3), ("sliced", {"grad": 6, "sup_loc": [1, 3]}, 3)):
            z_out, info = get_deq(core=core, f_max_iter=12, f_tol=1e-7, ift="grad" not in options, **options)(f, z0)
            self.assertEqual(len(z_out), count, options)
            end = exact(f, z0)
            errors = [(z - end).abs().max().item() for z in z_out]
            self.assertEqual(errors, sorted(errors, reverse=True), options)
            for z in z_out:
                self.assertTrue(z.requires_grad)
        z_out, _ = get_deq(core="indexing", f_solver="fixed_point_iter", f_max_iter=5, indexing=[2], f_tol=0)(f, z0)
        self.assertLess((z_out[0] - exact(f, z0, 2)).abs().max().item(), 1e-6)  # the state that was judged last, and a taped step

    def test_evaluation_mode_has_gradients(self):  # torchdeq's issue 8
        for ift in (True, False):
            w, f = problem()
            deq_ = get_deq(ift=ift, f_tol=1e-9, f_max_iter=200, grad=40).eval()
            z_out, info = deq_(f, torch.zeros(3, 4), sradius_mode=True)
            (got,) = torch.autograd.grad(z_out[-1].sum(), w)
            (want,) = torch.autograd.grad(exact(f, torch.zeros(3, 4)).sum(), w)
            self.assertLess((got - want).abs().max().item(), 1e-4 * want.abs().max().item())
            self.assertEqual(info["sradius"].shape, (3,))
            J = torch.autograd.functional.jacobian(f, z_out[-1].detach())[0, :, 0, :]
            self.assertAlmostEqual(info["sradius"][0].item(), torch.linalg.eigvals(J).abs().max().item(), places=4)
            with torch.no_grad():
                self.assertFalse(deq_(f, torch.zeros(3, 4))[0][-1].requires_grad)

    def test_evaluation_steps(self):
        w, f = problem()
        for options, steps in (({"eval_factor": 2.0}, 8), ({"eval_f_max_iter": 6}, 6), ({}, 4)):
            deq_ = get_deq(f_max_iter=4, f_tol=0, **options).eval()
            self.assertEqual(deq_(f, torch.zeros(3, 4))[1]["nstep"].tolist(), [steps] * 3)
        self.assertEqual(deq_(f, torch.zeros(3, 4), solver_kwargs={"f_max_iter": 7})[1]["nstep"].tolist(), [7] * 3)
        self.assertEqual(deq_.train()(f, torch.zeros(3, 4), solver_kwargs={"f_max_iter": 7})[1]["nstep"].tolist(), [7] * 3)

    def test_backward_writer(self):
        w, f = problem()
        heard = []
        z_out, _ = get_deq(ift=True, b_tol=1e-5)(f, torch.zeros(3, 4), backward_writer=heard.append)
        z_out[-1].sum().backward()
        self.assertEqual(len(heard), 1)
        self.assertEqual(heard[0]["rel_lowest"].shape, (3,))
        self.assertTrue(torch.isfinite(heard[0]["rel_lowest"]).all())


class Info(unittest.TestCase):
    def test_residuals_are_those_of_the_state(self):
        w, f = problem()
        for f_solver in ("fixed_point_iter", "anderson", "broyden", "simple_fixed_point_iter"):
            for mode in ("abs", "rel"):
                deq_ = get_deq(f_solver=f_solver, f_stop_mode=mode, f_tol=1e-4).eval()
                with torch.no_grad():
                    z_out, info = deq_(f, torch.zeros(3, 4))
                    z, fz = z_out[0], f(z_out[0])
                absolute = (fz - z).norm(dim=1)
                self.assertLess((info["abs_lowest"] - absolute).abs().max().item(), 1e-6)
                self.assertLess((info["rel_lowest"] - absolute / fz.norm(dim=1)).abs().max().item(), 1e-6)
                self.assertLessEqual(info[f"{mode}_lowest"].max().item(), 1e-4)
                self.assertEqual(info["abs_trace"].shape, info["rel_trace"].shape)
                self.assertTrue(torch.isfinite(info["abs_trace"]).all())
                if f_solver == "fixed_point_iter":
                    z = torch.zeros(3, 4)
                    for k in range(3):
                        self.assertLess((info["abs_trace"][:, k] - (f(z) - z).norm(dim=1)).abs().max().item(), 1e-5)
                        z = f(z)
                self.assertEqual(sorted(info), ["abs_lowest", "abs_trace", "nstep", "rel_lowest", "rel_trace", "sradius"])
        z_out, info = get_deq(f_solver="simple_fixed_point_iter", f_max_iter=9)(f, torch.zeros(3, 4))
        self.assertEqual(info["nstep"].tolist(), [9, 9, 9])
        _, info = get_deq(f_solver="broyden")(f, torch.zeros(3, 4), solver_kwargs={"ls": True})
        self.assertTrue(torch.isfinite(info["abs_lowest"]).all())

    def test_every_number_of_a_vector_is_a_row(self):
        z, _, info = fixed_point_iter(torch.cos, torch.zeros(5), tol=1e-5)
        self.assertEqual((z.shape, info["nstep"].shape), ((5,), (5,)))


class Arguments(unittest.TestCase):
    """Each does something, and what does nothing is an error (torchdeq's issue 12)."""

    def error(self, message, *args, **kwargs):
        with self.assertRaisesRegex(deq.Error, message):
            get_deq(*args, **kwargs)

    def test_errors(self):
        self.error("unknown argument 'stop_mode' of get_deq; the nearest is 'f_stop_mode'", stop_mode="rel")
        self.error("unknown argument 'bogus'", {"bogus": 1})
        self.error("unknown solver 'newton_'; known: anderson", f_solver="newton_")
        self.error("unknown solver 'newton_'", b_solver="newton_")
        self.error("stop_mode = 'both'", f_stop_mode="both")
        self.error("stop_mode = 'both'", b_stop_mode="both", ift=True)
        self.error("core = 'cut'; known: sliced, indexing", core="cut")
        self.error("grad = 0", grad=0)
        self.error(r"grad = \[1, 2\] for 3 states", grad=[1, 2], n_states=3)
        w, f = problem()
        for kwargs, message in (({"lam": 1e-4}, "absolute ridge"), ({"return_final": True}, "return_final"),
                                ({"mm": 3}, "unknown argument 'mm' of anderson")):
            with self.assertRaisesRegex(deq.Error, message):
                get_deq(f_solver="anderson")(f, torch.zeros(3, 4), solver_kwargs=kwargs)
        with self.assertRaisesRegex(deq.Error, "unknown argument 'sradius' of the call; the nearest is 'sradius_mode'"):
            get_deq()(f, torch.zeros(3, 4), sradius=True)
        with self.assertRaisesRegex(deq.Error, "norm_type = 'l2'"):
            apply_norm(nn.Linear(2, 2), "l2")
        with self.assertRaisesRegex(deq.Error, "unknown argument 'learn_scales' of apply_norm"):
            apply_norm(nn.Linear(2, 2), learn_scales=True)

    def test_defaults(self):
        parser = argparse.ArgumentParser()
        add_deq_args(parser)
        args = vars(parser.parse_args([]))
        self.assertEqual(args, dict(
            f_solver="fixed_point_iter", b_solver="fixed_point_iter", f_max_iter=40, b_max_iter=40, f_tol=1e-3,
            b_tol=1e-6, f_stop_mode="abs", b_stop_mode="abs", eval_factor=1.0, eval_f_max_iter=0,
            norm_type="weight_norm", norm_no_scale=False, norm_clip=False, norm_clip_value=1.0, norm_target_norm=1.0,
            sn_n_power_iters=1, core="sliced", ift=False, hook_ift=False, n_states=1, indexing=[], gamma=0.8, grad=[1],
            tau=1.0, sup_gap=-1, sup_loc=[], jac_loss_weight=0.0, jac_loss_freq=0.0, jac_incremental=0,
            sradius_mode=False))

    def test_solver_arguments_do_something(self):
        w, f = problem()
        z0 = torch.zeros(3, 4)

        def end(f_solver, **kwargs):
            return get_deq(f_solver=f_solver, f_max_iter=6, f_tol=0)(f, z0, solver_kwargs=kwargs)[0][-1]

        for solver, change in (("fixed_point_iter", {"tau": 0.5}), ("anderson", {"m": 2}), ("anderson", {"tau": 0.5}),
                               ("anderson", {"ridge": 0.5}), ("broyden", {"LBFGS_thres": 1})):
            self.assertFalse(end(solver).equal(end(solver, **change)), change)

    def test_adjoint_arguments_do_something(self):  # torchdeq's issue 5: what b_solver is
        def gradient(**kwargs):
            w, f = problem()
            z_out, _ = get_deq(ift=True, f_tol=1e-9, f_max_iter=200, **kwargs)(f, torch.zeros(3, 4))
            return torch.autograd.grad(z_out[-1].sum(), w)[0]

        plain = gradient(b_tol=1e-2)
        for change in ({"b_solver": "anderson"}, {"b_max_iter": 2}, {"b_tol": 1e-6}, {"b_stop_mode": "rel", "b_tol": 0.3}):
            self.assertFalse(plain.equal(gradient(**{"b_tol": 1e-2, **change})), change)

    def test_own_solver(self):
        def newton(func, x0, max_iter=50, tol=1e-3, stop_mode="abs", indexing=None, **kwargs):
            z = x0
            for _ in range(200):
                z = func(z)
            return z, [], {"nstep": torch.full((3,), 200.0)}

        register_solver("newton", newton)
        w, f = problem()
        for ift in (True, False):
            z_out, info = get_deq(f_solver="newton", ift=ift, grad=60)(f, torch.zeros(3, 4))
            (got,) = torch.autograd.grad(z_out[-1].sum(), w)
            (want,) = torch.autograd.grad(exact(f, torch.zeros(3, 4)).sum(), w)
            self.assertLess((got - want).abs().max().item(), 1e-4 * want.abs().max().item())
            self.assertEqual(info["nstep"].tolist(), [200] * 3)
        self.assertEqual(len(get_deq(f_solver="newton")(lambda a, b: (a * 0.5, b * 0.5), (X, X))[0][0]), 2)
        self.error("b_solver = newton", b_solver="newton")


class Parts(unittest.TestCase):
    def test_norms(self):
        torch.manual_seed(0)
        for module, x, dim in ((nn.Linear(5, 3), torch.randn(2, 5), 0), (nn.Conv2d(2, 3, 3), torch.randn(1, 2, 5, 5), 0),
                               (nn.ConvTranspose1d(2, 3, 3), torch.randn(1, 2, 5), 1)):
            before = module.weight.detach().clone()
            apply_norm(module, "weight_norm")
            self.assertEqual(sorted(name for name, _ in module.named_parameters() if "weight" in name),
                             ["weight_g", "weight_v"])
            self.assertLess((module.weight - before).abs().max().item(), 1e-6)
            with torch.no_grad():
                module.weight_g *= 2
            reset_norm(module)
            self.assertLess((module.weight - 2 * before).abs().max().item(), 1e-5)
            module(x).sum().backward()
            self.assertIsNotNone(module.weight_g.grad)
            remove_norm(module)
            self.assertLess((module.weight - 2 * before).abs().max().item(), 1e-5)
            apply_norm(module, "spectral_norm", args={"norm_no_scale": True, "norm_target_norm": 0.7,
                                                      "sn_n_power_iters": 100})
            reset_norm(module)
            self.assertFalse(hasattr(module, "weight_g"))
            top = torch.linalg.svdvals(module.weight.detach().transpose(0, dim).flatten(1))[0].item()
            self.assertAlmostEqual(top, 0.7, places=4)
        small = nn.Linear(5, 3)
        apply_norm(small, args=argparse.Namespace(norm_clip=True, norm_clip_value=0.5, norm_no_scale=True))
        self.assertLess((small.weight - 0.5 * small.weight_v).abs().max().item(), 1e-6)
        both = nn.ModuleDict({"embedding": nn.Linear(2, 2), "f": nn.Linear(2, 2)})
        apply_norm(both, "weight_norm", filter_out=["embedding"])
        self.assertFalse(hasattr(both["embedding"], "weight_g"))
        self.assertTrue(hasattr(both["f"], "weight_g"))
        apply_norm(both, "weight_norm", prefix_filter_out="f")
        self.assertTrue(hasattr(both["embedding"], "weight_g"))
        apply_norm(nn.Linear(2, 2), args={"norm_type": "none"})

        class Mine(nn.Linear):
            pass

        register_norm_module(Mine, "weight_norm", "weight", 0)
        mine = Mine(2, 2)
        apply_norm(mine)
        self.assertTrue(hasattr(mine, "weight_g"))

    def test_dropout(self):
        torch.manual_seed(0)
        drop = VariationalDropout1d(0.5)
        y = drop(torch.ones(4, 7, 50))
        self.assertTrue((y == y[:, :1]).all())
        self.assertEqual(sorted(set(y.flatten().tolist())), [0.0, 2.0])
        token = VariationalDropToken2d(0.25, token_first=False)(torch.ones(2, 3, 20, 20))
        self.assertTrue((token == token[:, :1]).all())
        self.assertAlmostEqual((token > 0).float().mean().item(), 0.75, delta=0.05)
        self.assertTrue(drop.eval()(torch.ones(1, 2, 3)).equal(torch.ones(1, 2, 3)))

    def test_jacobian(self):
        torch.manual_seed(0)
        angle = torch.tensor(0.7)
        J = 0.9 * torch.stack([torch.stack([angle.cos(), -angle.sin()]), torch.stack([angle.sin(), angle.cos()])])
        z = torch.zeros(3, 2, requires_grad=True)
        _, radius = power_method(z @ J, z)
        self.assertLess((radius - 0.9).abs().max().item(), 1e-3)
        z = torch.zeros(200, 2, requires_grad=True)
        self.assertAlmostEqual(jac_reg(z @ J, z, vecs=20).item(), 0.81, delta=0.05)

    def test_rest(self):
        z = mixed_init((200, 50))
        self.assertAlmostEqual((z == 0).float().mean().item(), 0.5, delta=0.05)
        layer = nn.Linear(4, 4)
        (got,) = torch.autograd.grad(mem_gc(layer, (X,)).sin().sum(), layer.weight)
        (want,) = torch.autograd.grad(layer(X).sin().sum(), layer.weight)
        self.assertTrue(got.equal(want))


if __name__ == "__main__":
    unittest.main()
