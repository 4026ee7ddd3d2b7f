"""Equilibria of Python's f: values and gradients against many plain taped steps in double."""

import gc
import threading
import unittest
import weakref

import torch

import deq

torch.set_default_dtype(torch.double)


class Problem:
    """z = tanh(W z + U x + b) with a spectral radius below one."""

    def __init__(self, batch=3, width=5, seed=0, dtype=torch.double):
        g = torch.Generator().manual_seed(seed)
        self.W = (torch.randn(width, width, generator=g) * 0.35 / width**0.5).to(dtype).requires_grad_()
        self.b = torch.randn(width, generator=g).to(dtype).requires_grad_()
        self.x = torch.randn(batch, width, generator=g).to(dtype).requires_grad_()
        self.z0 = torch.zeros(batch, width, dtype=dtype)
        self.weight = torch.randn(batch, width, generator=g).to(dtype)

    def f(self, z):
        return torch.tanh(z @ self.W.T + self.x + self.b)

    def leaves(self):
        return [self.W, self.b, self.x]

    def gradients(self, z):
        return torch.autograd.grad((z * self.weight).sum(), self.leaves())


def unrolled(f, z0, steps=200):
    z = z0
    for _ in range(steps):
        z = f(z)
    return z


TIGHT = {"max_steps": 200, "rel_tol": 1e-12, "gradient": deq.Implicit(max_steps=200, rel_tol=1e-12)}


class Values(unittest.TestCase):
    def close(self, a, b, tolerance=1e-9):
        self.assertLess((a - b).abs().max().item(), tolerance)

    def test_call_of_the_documentation(self):
        p = Problem()
        z, report = deq.equilibrate(p.f, p.z0, solver=deq.Anderson(memory=5), gradient=deq.Implicit(),
                                    max_steps=40, rel_tol=1e-4)
        self.assertTrue(report.converged)
        self.assertEqual((report.max_steps, report.rel_tol), (40, 1e-4))
        self.assertEqual(report.reason.tolist(), [int(deq.Reason.CONVERGED)] * 3)
        self.assertEqual(report.count(deq.Reason.CONVERGED), 3)
        self.assertIn("converged", str(report))
        self.assertIsNone(report.adjoint)
        z.sum().backward()
        self.assertTrue(report.adjoint.converged)
        residual = (p.f(z) - z).norm(dim=1) / p.f(z).norm(dim=1)
        self.close(report.residual, residual.detach(), 1e-12)
        self.assertLess(report.worst_residual, 1e-4)

    def test_gradients_are_those_of_unrolled_steps(self):
        p = Problem()
        wanted = p.gradients(unrolled(p.f, p.z0))
        for gradient in (deq.Implicit(max_steps=200, rel_tol=1e-12), deq.Unrolled(steps=200),
                         deq.Checkpointed(steps=200), deq.Phantom(steps=200)):
            for solver in (deq.Picard, deq.Anderson(), deq.Broyden(memory=30)):
                z = deq.equilibrium(p.f, p.z0, solver=solver, gradient=gradient, max_steps=200, rel_tol=1e-13)
                self.close(z, unrolled(p.f, p.z0))
                for got, want in zip(p.gradients(z), wanted):
                    self.close(got, want)

    def test_taped_steps_are_judged_by_the_tolerance(self):
        p = Problem()
        for rel_tol, converged in ((0.5, True), (1e-12, False)):
            _, report = deq.equilibrate(p.f, p.z0, gradient=deq.Unrolled(steps=6), rel_tol=rel_tol)
            self.assertEqual((report.rel_tol, report.converged), (rel_tol, converged))

    def test_solve_records_no_tape(self):
        p = Problem()
        z, report = deq.solve(p.f, p.z0, solver="broyden", rel_tol=1e-12, max_steps=100)
        self.assertFalse(z.requires_grad)
        self.assertTrue(report.converged)
        self.close(z, unrolled(p.f, p.z0).detach())
        self.assertIsNone(report.adjoint)

    def test_what_does_not_converge_says_so(self):
        z, report = deq.solve(lambda z: 3 * z + 1, torch.ones(2, 3), solver="picard", max_steps=5)
        self.assertFalse(report.converged)
        self.assertEqual(report.converged_share, 0)
        self.assertEqual(report.count(deq.Reason.MAX_STEPS), 2)
        self.assertEqual(report.steps.tolist(), [5, 5])
        nan, report = deq.solve(lambda z: z / 0 * 0, torch.ones(2, 3), max_steps=5)
        self.assertEqual(report.count(deq.Reason.NON_FINITE), 2)

    def test_floats(self):
        p = Problem(dtype=torch.float)
        z = deq.equilibrium(p.f, p.z0, rel_tol=1e-6, gradient=deq.Implicit(rel_tol=1e-6))
        self.assertEqual(z.dtype, torch.float)
        for got, want in zip(p.gradients(z), p.gradients(unrolled(p.f, p.z0))):
            self.close(got, want, 1e-4)

    def test_no_tape_no_gradient(self):
        p = Problem()
        with torch.no_grad():
            z, report = deq.equilibrate(p.f, p.z0, **TIGHT)
        self.assertFalse(z.requires_grad)
        with torch.inference_mode():
            self.assertFalse(deq.equilibrium(p.f, p.z0).requires_grad)

    def test_start_has_no_gradient(self):
        p = Problem()
        start = torch.zeros(3, 5, requires_grad=True)
        z = deq.equilibrium(p.f, start, **TIGHT)
        self.assertIsNone(torch.autograd.grad(z.sum(), start, allow_unused=True)[0])

    def test_layer_used_twice_before_backward(self):
        p, q = Problem(seed=1), Problem(seed=2)
        z = deq.equilibrium(p.f, p.z0, **TIGHT)
        y = deq.equilibrium(lambda y: torch.tanh(y @ q.W.T + z), q.z0, **TIGHT)
        want_z = unrolled(p.f, p.z0)
        want_y = unrolled(lambda y: torch.tanh(y @ q.W.T + want_z), q.z0)
        got = torch.autograd.grad(y.sum() + z.sum(), [p.W, p.x, q.W])
        for one, other in zip(got, torch.autograd.grad(want_y.sum() + want_z.sum(), [p.W, p.x, q.W])):
            self.close(one, other)

    def test_equilibrium_inside_an_equilibrium(self):
        p, q = Problem(seed=1), Problem(seed=2)

        def inner(z):
            return deq.equilibrium(lambda y: torch.tanh(y @ q.W.T + z), q.z0, **TIGHT)

        def inner_unrolled(z):
            return unrolled(lambda y: torch.tanh(y @ q.W.T + z), q.z0, 60)

        z = deq.equilibrium(lambda z: 0.5 * torch.tanh(inner(z) @ p.W.T + p.x), p.z0, **TIGHT)
        want = unrolled(lambda z: 0.5 * torch.tanh(inner_unrolled(z) @ p.W.T + p.x), p.z0, 40)
        self.close(z, want)
        leaves = [p.W, p.x, q.W]
        for one, other in zip(torch.autograd.grad(z.sum(), leaves), torch.autograd.grad(want.sum(), leaves)):
            self.close(one, other)

    def test_python_function_inside_f(self):
        class Tanh(torch.autograd.Function):
            @staticmethod
            def forward(ctx, x):
                y = torch.tanh(x)
                ctx.save_for_backward(y)
                return y

            @staticmethod
            def backward(ctx, g):
                return g * (1 - ctx.saved_tensors[0] ** 2)

        p = Problem()
        z = deq.equilibrium(lambda z: Tanh.apply(z @ p.W.T + p.x + p.b), p.z0, **TIGHT)
        for one, other in zip(p.gradients(z), p.gradients(unrolled(p.f, p.z0))):
            self.close(one, other)

    def test_f_does_its_own_backward(self):
        p = Problem()
        A = torch.diag(torch.arange(1.0, 6.0)) / 8

        def step(z):  # a gradient step on an energy, z - dE/dz
            with torch.enable_grad():
                v = z.detach().requires_grad_()
                (g,) = torch.autograd.grad((0.5 * (v @ A * v).sum() - (v * p.x.detach()).sum()), v)
            return z - g

        z, report = deq.solve(step, p.z0, rel_tol=1e-10, max_steps=100)
        self.assertTrue(report.converged)
        self.close(z, p.x.detach() / A.diagonal(), 1e-7)

    def test_adjoint_listener(self):
        p = Problem()
        heard = []
        z, report = deq.equilibrate(p.f, p.z0, on_adjoint=heard.append, **TIGHT)
        self.assertEqual(heard, [])
        z.sum().backward()
        self.assertEqual(len(heard), 1)
        self.assertTrue(heard[0].converged)
        self.assertEqual(heard[0].evaluations, report.adjoint.evaluations)

    def test_jacobian(self):
        diagonal = torch.tensor([0.9, -0.5, 0.1])
        f = lambda z: z * diagonal  # noqa: E731
        found = deq.spectral_radius(f, torch.zeros(2, 3))
        self.assertTrue(found.converged)
        self.close(found.radius, torch.full((2,), 0.9), 1e-9)
        self.assertLess(found.moved.max().item(), 1e-5)
        torch.manual_seed(0)
        weight = torch.ones(3, requires_grad=True)
        loss = deq.jacobian_loss(lambda z: z * diagonal * weight, torch.zeros(2, 3), probes=4000)
        want = (diagonal**2).sum().item() / 3
        self.assertLess(abs(loss.item() - want), 0.1 * want)
        (g,) = torch.autograd.grad(loss, weight)
        self.close(g, 2 * diagonal**2 / 3, 0.1)

    def test_autocast(self):
        p = Problem(dtype=torch.float)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            seen = []

            def f(z):
                seen.append((z @ p.W.T).dtype)
                return torch.tanh(torch.nn.functional.linear(z, p.W) + p.x + p.b)

            z = deq.equilibrium(f, p.z0)
            both, _ = deq.solve(lambda z: [torch.mm(z[0], p.W), z[1].cos()], [p.z0, p.z0])
        self.assertEqual((z.dtype, both[0].dtype), (torch.float, torch.float))
        self.assertIn(torch.bfloat16, seen)
        for got, want in zip(p.gradients(z), p.gradients(unrolled(p.f, p.z0))):
            self.close(got, want, 0.1)

    def test_in_place_f(self):
        p = Problem()
        want = unrolled(p.f, p.z0).detach()
        buffer = torch.empty(3, 5)

        def f(z):
            with torch.no_grad():
                z.copy_(p.f(z))
            return z

        def g(z):
            with torch.no_grad():
                buffer.copy_(p.f(z))
            return buffer

        kept = []

        def h(z):  # keeps what it is given and what it gives
            value = p.f(z).detach()
            kept.extend([(z, z.sum().item()), (value, value.sum().item())])
            return value

        for one in (f, g, h):
            z, report = deq.solve(one, p.z0, rel_tol=1e-12, max_steps=100)
            self.assertTrue(report.converged)
            self.close(z, want)
        self.assertEqual(p.z0.abs().sum().item(), 0)
        for tensor, total in kept:
            self.assertEqual(tensor.sum().item(), total)


class Layers(unittest.TestCase):
    def test_layer_is_a_module(self):
        class Cell(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.W = torch.nn.Linear(5, 5)

            def forward(self, z, x):
                return torch.tanh(0.3 * self.W(z) + x)

        torch.manual_seed(0)
        cell = Cell()
        layer = deq.Layer(cell, solver=deq.Anderson(memory=5), rel_tol=1e-10, gradient=deq.Implicit(rel_tol=1e-10))
        self.assertEqual([name for name, _ in layer.named_parameters()], ["f.W.weight", "f.W.bias"])
        x = torch.randn(4, 5)
        want = unrolled(lambda z: cell(z, x), torch.zeros(4, 5))
        gradients = torch.autograd.grad(want.sum(), list(cell.parameters()))
        for mode in (True, False):
            layer.train(mode)
            z, report = layer.equilibrate(x)
            self.assertTrue(report.converged)
            self.assertLess((z - want).abs().max().item(), 1e-8)
            for one, other in zip(torch.autograd.grad(layer(x).sum(), list(layer.parameters())), gradients):
                self.assertLess((one - other).abs().max().item(), 1e-7)
        again, report = layer.equilibrate(x, z0=z.detach())
        self.assertLessEqual(report.evaluations, 3)
        net = torch.nn.Sequential(layer, torch.nn.Linear(5, 1))
        self.assertEqual(net(x).shape, (4, 1))
        self.assertIn("Anderson(memory=5)", repr(layer))
        with self.assertRaisesRegex(deq.Error, "z0"):
            layer()
        with self.assertRaisesRegex(deq.Error, "max_step'.*max_steps"):
            deq.Layer(cell, max_step=3)


class States(unittest.TestCase):
    """Several tensors as a state."""

    def test_tuple_and_list(self):
        p = Problem()

        def both(z):
            self.assertIs(type(z), kind)
            a, b = z
            self.assertEqual((a.shape, b.shape), ((3, 5), (3, 2, 2)))
            self.assertTrue(a.is_contiguous() and b.is_contiguous())
            mean = b.reshape(3, 4).mean(1, keepdim=True)
            return kind((torch.tanh(a @ p.W.T + p.x + 0.2 * mean), 0.3 * b.sin() + a[:, :4].reshape(3, 2, 2)))

        for kind in (tuple, list):
            start = kind((torch.zeros(3, 5), torch.zeros(3, 2, 2)))
            z, report = deq.equilibrate(both, start, **TIGHT)
            self.assertIs(type(z), kind)
            self.assertTrue(report.converged)
            self.assertEqual(report.residual.shape, (3,))
            want = start
            for _ in range(200):
                want = both(want)
            got = torch.autograd.grad(z[0].sum() + (z[1] ** 2).sum(), [p.W, p.x])
            for one, other in zip(got, torch.autograd.grad(want[0].sum() + (want[1] ** 2).sum(), [p.W, p.x])):
                self.assertLess((one - other).abs().max().item(), 1e-9)
            self.assertLess((z[1] - want[1]).abs().max().item(), 1e-9)
            found, _ = deq.solve(both, start)
            self.assertIs(type(found), kind)
            self.assertTrue(torch.isfinite(deq.jacobian_loss(both, z)).item())
            self.assertEqual(deq.spectral_radius(both, z).radius.shape, (3,))

    def test_by_position_and_whole(self):
        start = (torch.zeros(2, 4, 3), torch.zeros(2, 4))
        f = lambda z: (0.5 * z[0].cos(), 0.5 * z[1].sin() + 1)  # noqa: E731
        z, report = deq.solve(f, start, solver=deq.Anderson(scope="position"), rel_tol=1e-10)
        self.assertEqual(report.residual.shape, (8,))
        self.assertEqual((z[0].shape, z[1].shape), ((2, 4, 3), (2, 4)))
        free = (torch.zeros(2, 4), torch.zeros(()))
        z, report = deq.solve(f, free, solver=deq.Picard(scope="whole"), rel_tol=1e-10, max_steps=200)
        self.assertEqual(report.residual.shape, (1,))
        self.assertTrue(report.converged)
        self.assertEqual((z[0].shape, z[1].shape), ((2, 4), ()))

    def test_rows_of_the_adjoint(self):
        scale = torch.tensor(0.5, requires_grad=True)
        f = lambda z: (scale * z[0].cos(), scale * z[1].sin() + 1)  # noqa: E731
        start = (torch.zeros(2, 4, 3), torch.zeros(2, 4))
        z, report = deq.equilibrate(f, start, rel_tol=1e-11, max_steps=100,
                                    gradient=deq.Implicit(solver=deq.Anderson(scope="position"), rel_tol=1e-11))
        (got,) = torch.autograd.grad(z[0].sum() + z[1].sum(), scale)
        self.assertEqual((report.residual.shape, report.adjoint.residual.shape), ((2,), (8,)))
        want = start
        for _ in range(100):
            want = f(want)
        (exact,) = torch.autograd.grad(want[0].sum() + want[1].sum(), scale)
        self.assertLess((got - exact).abs().item(), 1e-9)

    def test_errors(self):
        f = lambda z: z  # noqa: E731
        one = torch.zeros(3, 5)
        for state, message in (((one, torch.zeros(2, 5)), r"z0\[1\] has shape \[2, 5\].*begins with \[3\]"),
                               ((one, torch.zeros(3, 5, dtype=torch.float)), r"z0\[1\] is of Float.*Double"),
                               ((one, 3), r"z0\[1\] is of type int"),
                               ((), "z0 is empty"),
                               ((one, torch.zeros(())), r"z0\[1\] has shape \[\]"),
                               ("z", "z0 is of type str")):
            with self.assertRaisesRegex(deq.Error, message):
                deq.solve(f, state)
        for value, message in ((one, r"f's value is of type Tensor; expected a tuple or list of 2"),
                               ((one,), "f's value has 1 tensors; expected 2"),
                               ((one, torch.zeros(3, 1)), r"f's value\[1\] has shape \[3, 1\]; expected \[3, 5\]"),
                               ((one, one.float()), r"f's value\[1\] is of Float; expected Double"),
                               ((one, None), r"f's value\[1\] is of type NoneType")):
            with self.assertRaisesRegex(deq.Error, message):
                deq.solve(lambda z: value, (one, one))


class Lifetimes(unittest.TestCase):
    def test_f_is_freed(self):
        class F:
            def __init__(self, p):
                self.p = p

            def __call__(self, z):
                return self.p.f(z)

        for gradient in (deq.Implicit(), deq.Phantom(), deq.Unrolled(), deq.Checkpointed()):
            f = F(Problem())
            watch = weakref.ref(f)
            z, report = deq.equilibrate(f, f.p.z0, gradient=gradient)
            loss = z.sum()
            loss.backward()
            del f, z
            gc.collect()
            self.assertIsNone(watch() if not isinstance(gradient, deq.Checkpointed) else None)
            del loss
            self.assertIsNone(watch())

    def test_eight_threads(self):
        wanted = {}
        errors = []

        def work(seed):
            try:
                p = Problem(seed=seed)
                for _ in range(20):
                    z = deq.equilibrium(p.f, p.z0, **TIGHT)
                    got = p.gradients(z)
                want = p.gradients(unrolled(p.f, p.z0))
                for one, other in zip(got, want):
                    assert (one - other).abs().max().item() < 1e-9
                wanted[seed] = True
            except BaseException as error:  # noqa: BLE001  told to the main thread
                errors.append(error)

        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(errors, [])
        self.assertEqual(len(wanted), 8)


if __name__ == "__main__":
    unittest.main()
