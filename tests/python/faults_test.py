"""What can go wrong in a Python f, around it, and at the end of the interpreter."""

import os
import signal
import subprocess
import sys
import time
import unittest

import torch
import torch.utils.data

import deq

W = torch.full((4, 4), 0.1, requires_grad=True)
Z0 = torch.zeros(3, 4)


def f(z):
    return torch.tanh(z @ W + 1)


def python(code, **kwargs):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, **kwargs)


class Values(unittest.TestCase):
    """f that returns what it must not."""

    def test_not_what_was_given(self):
        for value, message in ((None, "f's value is of type NoneType; expected a tensor"),
                               ((Z0,), "f's value is of type tuple; expected a tensor"),
                               (torch.zeros(3, 5), r"f's value has shape \[3, 5\]; expected \[3, 4\]"),
                               (torch.zeros(3, 4, dtype=torch.double), "f's value is of Double; expected Float"),
                               (torch.zeros(3, 4, dtype=torch.long), "f's value is of Long; expected Float"),
                               (torch.zeros(3, 4, device="meta"), "f's value is on meta; expected cpu")):
            for call in (deq.solve, deq.equilibrate, deq.equilibrium):
                with self.assertRaisesRegex(deq.Error, message):
                    call(lambda z: value, Z0)
            for gradient in ("phantom", "one-step", "unrolled", "checkpointed"):
                with self.assertRaisesRegex(deq.Error, message):
                    deq.equilibrate(lambda z: value, Z0, gradient=gradient)
            with self.assertRaisesRegex(deq.Error, message):
                deq.spectral_radius(lambda z: value, Z0)
            with self.assertRaisesRegex(deq.Error, message):
                deq.jacobian_loss(lambda z: value, Z0)

    def test_another_value_later(self):
        calls = []

        def changes(z):
            calls.append(1)
            return f(z) if len(calls) < 3 else f(z)[:2]

        with self.assertRaisesRegex(deq.Error, r"shape \[2, 4\]"):
            deq.solve(changes, Z0, rel_tol=1e-12)

    def test_not_callable(self):
        for call in (deq.solve, deq.equilibrate):
            with self.assertRaisesRegex(deq.Error, "f is of type int; expected a callable"):
                call(3, Z0)

    def test_whole_numbers(self):
        with self.assertRaisesRegex(deq.Error, "floating"):
            deq.solve(lambda z: z, torch.zeros(3, 4, dtype=torch.long))

    def test_error_is_both(self):
        self.assertTrue(issubclass(deq.Error, RuntimeError) and issubclass(deq.Error, ValueError))


class Mine(Exception):
    pass


class Raising(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, g):
        raise Mine("in backward")


class Exceptions(unittest.TestCase):
    """They keep their type, their message and where they come from."""

    def test_in_f(self):
        def raises(z):
            raise Mine("in f", 7)

        for call in (deq.solve, deq.equilibrate, deq.spectral_radius, deq.jacobian_loss):
            frames = []
            try:
                call(raises, Z0)
                self.fail("nothing was raised")
            except Mine as error:
                self.assertEqual(error.args, ("in f", 7))
                trace = error.__traceback__
            while trace:
                frames.append(trace.tb_frame.f_code.co_name)
                trace = trace.tb_next
            self.assertIn("raises", frames)

    def test_in_the_tape_of_f(self):
        z = deq.equilibrium(lambda z: Raising.apply(f(z)), Z0)
        with self.assertRaisesRegex(Mine, "in backward"):
            z.sum().backward()

    def test_in_f_called_again_in_backward(self):
        calls = []

        def later(z):
            calls.append(1)
            if len(calls) > 12:
                raise Mine("again")
            return f(z)

        z = deq.equilibrium(later, Z0, gradient=deq.Checkpointed(steps=12))
        with self.assertRaisesRegex(Mine, "again"):
            z.sum().backward()

    def test_listener(self):
        def raises(report):
            raise Mine("listener")

        z, _ = deq.equilibrate(f, Z0, on_adjoint=raises)
        with self.assertRaisesRegex(Mine, "listener"):
            z.sum().backward()

    def test_torch_errors_are_torch_errors(self):
        with self.assertRaisesRegex(RuntimeError, "shapes cannot be multiplied"):
            deq.solve(lambda z: z @ torch.zeros(7, 7), Z0)

    def test_everything_works_afterwards(self):
        with self.assertRaises(ZeroDivisionError):
            deq.solve(lambda z: 1 / 0, Z0)
        _, report = deq.solve(f, Z0)
        self.assertTrue(report.converged)


class Derivatives(unittest.TestCase):
    def test_twice(self):
        z = deq.equilibrium(f, Z0)
        with self.assertRaisesRegex(RuntimeError, r"create_graph.*use the gradient 'unrolled'"):
            torch.autograd.grad(z.sum(), W, create_graph=True)
        z = deq.equilibrium(f, Z0, gradient=deq.Unrolled(steps=50))
        (g,) = torch.autograd.grad(z.sum(), W, create_graph=True)
        (second,) = torch.autograd.grad(g.sum(), W)
        self.assertTrue(torch.isfinite(second).all().item())

    def test_backward_a_second_time(self):
        z = deq.equilibrium(f, Z0)
        z.sum().backward()
        with self.assertRaisesRegex(RuntimeError, "second time"):
            z.sum().backward()
        z = deq.equilibrium(f, Z0)
        (first,) = torch.autograd.grad(z.sum(), W, retain_graph=True)
        (again,) = torch.autograd.grad(z.sum(), W)
        self.assertTrue(first.equal(again))


SLOW = """
import time, torch, deq
calls = []
def f(z):
    calls.append(1)
    if len(calls) == 3: print("running", flush=True)
    {work}
    return z + 1
try:
    deq.{call}({f}, torch.ones(3, 4), max_steps=10**9, rel_tol=0, solver="picard")
except KeyboardInterrupt:
    print("interrupted", time.time(), flush=True)
"""


class Interrupts(unittest.TestCase):
    def interrupted(self, code):
        child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        self.addCleanup(child.kill)
        self.assertEqual(child.stdout.readline(), "running\n")
        time.sleep(0.3)
        start = time.time()
        child.send_signal(signal.SIGINT)
        out, _ = child.communicate(timeout=60)
        self.assertTrue(out.startswith("interrupted "), out)
        self.assertEqual(child.returncode, 0)
        self.assertLess(float(out.split()[1]) - start, 1.0)

    def test_ctrl_c(self):
        for call in ("solve", "equilibrate"):
            self.interrupted(SLOW.format(call=call, f="f", work="time.sleep(0.01)"))

    def test_f_without_a_line_of_python(self):
        code = SLOW.format(call="solve", f="torch.neg", work="pass").replace(
            "try:", 'print("running", flush=True)\ntry:')
        self.interrupted(code)

    def test_a_cell_without_python(self):
        self.interrupted("""
import time, torch, deq
cell = deq.cells.Transformer(width=32, heads=2, inner=64)
f = cell.bind(torch.randn(4, 64, 32))
print("running", flush=True)
try:
    with torch.no_grad(): deq.solve(f, torch.zeros(4, 64, 32), max_steps=10**9, rel_tol=0, solver="picard")
except KeyboardInterrupt:
    print("interrupted", time.time(), flush=True)
""")


class Ends(unittest.TestCase):
    """The interpreter goes while graphs, solves or children live."""

    LIVE = """
import torch, deq
W = torch.full((4, 4), 0.1, requires_grad=True)
class F:
    def __call__(self, z): return torch.tanh(z @ W + 1)
kept = [deq.equilibrate(F(), torch.zeros(3, 4), gradient=g) for g in ("implicit", "checkpointed", "unrolled")]
layer = deq.Layer(lambda z, x: torch.tanh(z @ W + x)); y = layer(torch.ones(3, 4))
loss = y.sum() + sum(z.sum() for z, _ in kept)
"""

    def test_exit_with_a_live_graph(self):
        for end in ("", "import sys; sys.exit(3)", "raise SystemExit(3)", "import gc; gc.disable()"):
            child = python(self.LIVE + end)
            self.assertEqual((child.returncode, child.stderr), (3 if "3" in end else 0, ""))

    def test_exit_while_a_thread_solves(self):
        child = python(self.LIVE + """
import threading, time
def work():
    deq.solve(lambda z: z + 1, torch.zeros(3, 4), max_steps=10**9, rel_tol=0, solver="picard")
threading.Thread(target=work, daemon=True).start()
time.sleep(0.5)
print("end")
""")
        self.assertEqual((child.returncode, child.stdout, child.stderr), (0, "end\n", ""))

    def test_workers_of_a_data_loader(self):
        z, _ = deq.solve(f, Z0)  # so that the parent has run everything before it forks
        loader = torch.utils.data.DataLoader(Solved(), batch_size=2, num_workers=2)
        got = torch.cat(list(loader))
        self.assertEqual(got.shape, (8, 4))
        self.assertLess((got - z[0]).abs().max().item(), 1e-3)

    def test_fork_with_a_live_graph(self):
        z = deq.equilibrium(f, Z0, rel_tol=1e-6)
        wanted = torch.autograd.grad(z.sum(), W, retain_graph=True)[0]
        child = os.fork()
        if child == 0:
            torch.set_num_threads(1)
            with torch.no_grad():
                _, report = deq.solve(f, Z0)
            del z
            os._exit(0 if report.converged else 1)
        _, status = os.waitpid(child, 0)
        self.assertEqual(os.waitstatus_to_exitcode(status), 0)
        self.assertTrue(torch.autograd.grad(z.sum(), W)[0].equal(wanted))


class Solved(torch.utils.data.Dataset):
    def __len__(self):
        return 8

    def __getitem__(self, index):
        return deq.solve(f, Z0)[0][0]


if __name__ == "__main__":
    unittest.main()
