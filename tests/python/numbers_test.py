"""What calls from Python take: memory, time over f alone, calls of f, libraries."""

import re
import time
import unittest

import torch

import deq


def resident():
    """kB of this process."""
    with open("/proc/self/status", encoding="ascii") as status:
        return int(re.search(r"VmRSS:\s+(\d+)", status.read()).group(1))


class Numbers(unittest.TestCase):
    def setUp(self):
        torch.set_num_threads(1)

    def test_memory_is_flat_over_ten_thousand_steps(self):
        W = torch.full((8, 8), 0.1, requires_grad=True)
        x = torch.linspace(-1, 1, 32).reshape(4, 8)
        z0 = torch.zeros(4, 8)
        layer = deq.Layer(lambda z, x: torch.tanh(z @ W + x))

        def step(k):
            if k % 3 == 0:
                z, _ = deq.equilibrate(lambda z: torch.tanh(z @ W + x), z0, max_steps=10)
            elif k % 3 == 1:
                z = layer(x)
            else:
                z = deq.equilibrium(lambda z: (torch.tanh(z[0] @ W + x), 0.5 * z[1].cos()), (z0, z0), max_steps=10)[0]
            z.sum().backward()
            W.grad = None

        for k in range(1000):
            step(k)
        before = resident()
        for k in range(10000):
            step(k)
        self.assertLess(resident() - before, 1500)

    def test_an_evaluation_costs_little_over_f(self):
        z0, steps = torch.ones(1, 4), 2000

        def cpu(work):
            times = []
            for _ in range(7):
                start = time.process_time()
                work()
                times.append(time.process_time() - start)
            return min(times) / steps

        alone = cpu(lambda: [torch.neg(z0) for _ in range(steps)])
        solve = cpu(lambda: deq.solve(torch.neg, z0, solver="picard", max_steps=steps, rel_tol=0.0))
        self.assertLess(solve - alone, 20e-6)

    def test_calls_of_f(self):
        torch.manual_seed(0)
        W = (torch.randn(64, 64) * 0.8 / 8).requires_grad_()
        x = torch.randn(8, 16, 64)
        calls = []

        def f(z):
            calls.append(1)
            return torch.tanh(torch.nn.functional.linear(z, W) + x)

        z, report = deq.equilibrate(f, torch.zeros(8, 16, 64), rel_tol=1e-5, max_steps=60)
        self.assertTrue(report.converged)
        z.sum().backward()
        self.assertEqual(len(calls), report.evaluations)  # none in backward
        self.assertLessEqual(len(calls), 24)

    def test_one_copy_of_each_library(self):
        with open("/proc/self/maps", encoding="ascii") as maps:
            files = {line.split(maxsplit=5)[5].strip() for line in maps if len(line.split(maxsplit=5)) == 6}
        for library in ("libtorch_cpu", "libtorch_python", "libc10", "libgomp"):
            self.assertEqual(len({file for file in files if f"/{library}" in file}), 1, library)


if __name__ == "__main__":
    unittest.main()
