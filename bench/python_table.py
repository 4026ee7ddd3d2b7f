"""What a solve from Python takes: forward and backward of a Python f, and the binding's share of an evaluation.

usage: PYTHONPATH=build/release/python python3 bench/python_table.py

CPU time, since machines are shared; the best of several. Prints one JSON object a line.
"""

import json
import time

import torch

import deq


def best(work, seconds=2.0):
    """CPU milliseconds of the fastest of many calls."""
    work()
    times, end = [], time.monotonic() + seconds
    while time.monotonic() < end or len(times) < 5:
        start = time.process_time()
        work()
        times.append(1e3 * (time.process_time() - start))
    return min(times)


def problem(shape, radius=0.8, seed=0):
    """z = tanh(W z + x), W of about that spectral radius: f, z0, leaves, and the number of calls of f."""
    torch.manual_seed(seed)
    width = shape[-1]
    W = (torch.randn(width, width) * radius / width**0.5).requires_grad_()
    x = torch.randn(shape).requires_grad_()
    calls = [0]

    def f(z):
        calls[0] += 1
        return torch.tanh(torch.nn.functional.linear(z, W) + x)

    return f, torch.zeros(shape), [W, x], calls


def forward_and_backward(shape):
    f, z0, leaves, calls = problem(shape)

    def step():
        z, report = deq.equilibrate(f, z0, solver=deq.Anderson(memory=6), rel_tol=1e-5, max_steps=60,
                                    gradient=deq.Implicit(solver=deq.Anderson(memory=6), rel_tol=1e-5, max_steps=60))
        torch.autograd.grad(z.sum(), leaves)
        return report

    calls[0] = 0
    report = step()
    row = {"what": "forward and backward", "shape": shape, "calls_of_f": calls[0], "residual": report.worst_residual,
           "products": report.adjoint.evaluations}
    return {**row, "milliseconds": best(step)}


def evaluation(numbers=4, steps=2000):
    """Of a Picard solve, over what f alone takes."""
    z0 = torch.ones(1, numbers)
    minus = torch.neg
    alone = best(lambda: [minus(z0) for _ in range(steps)])
    solve = best(lambda: deq.solve(minus, z0, solver="picard", max_steps=steps, rel_tol=0.0))
    return {"what": "an evaluation in a Picard solve, over f alone", "numbers": numbers,
            "microseconds": 1e3 * (solve - alone) / steps}


if __name__ == "__main__":
    torch.set_num_threads(1)
    for shape in ((8, 16, 64), (8, 128, 256)):
        print(json.dumps(forward_and_backward(shape)))
    print(json.dumps(evaluation()))
