"""Options: names, values and errors are those of the core's fields."""

import inspect
import pathlib
import subprocess
import sys
import unittest

import torch

import deq

Z0 = torch.ones(2, 3)
Z1 = torch.linspace(-1, 2, 6).reshape(2, 3)


def cos(z):
    return 0.9 * torch.cos(z)


class Options(unittest.TestCase):
    def error(self, message, call, *args, **kwargs):
        with self.assertRaisesRegex(deq.Error, message):
            call(*args, **kwargs)

    def test_alternatives_check_themselves(self):
        self.error("^unknown option 'memry'; the nearest is 'memory'$", deq.Anderson, memry=3)
        self.error("^memory = 0; expected in ", deq.Anderson, memory=0)
        self.error("^memory = many; expected a whole number", deq.Anderson, memory="many")
        self.error("^memory = 2.5; expected a whole number", deq.Anderson, memory=2.5)
        self.error("^ridge = -1", deq.Anderson, ridge=-1)
        self.error("^ridge = nan; expected a number", deq.Anderson, ridge=float("nan"))
        self.error("^unknown scope 'future'; known: sample, position, causal, whole", deq.Anderson, scope="future")
        self.error("^line_search = 1; expected true or false", deq.Broyden, line_search=1)
        self.error("^memory is of type object; expected", deq.Anderson, memory=object())
        self.error("^unknown option 'max_step'; the nearest is 'max_steps'", deq.Implicit, max_step=3)
        self.error("^rel_tol = ", deq.Implicit, rel_tol=-1)

    def test_calls_check_options(self):
        for call in (deq.equilibrate, deq.equilibrium, deq.solve):
            self.error("^unknown option 'max_step'; the nearest is 'max_steps'$", call, cos, Z0, max_step=3)
            self.error("^max_steps = 0; expected >= 1", call, cos, Z0, max_steps=0)
            self.error("^unknown solver 'newton'; known: ", call, cos, Z0, solver="newton")
            self.error("^solver_line_search is not an option of solver 'anderson'", call, cos, Z0, solver_line_search=True)
            self.error("^solver_memory is given twice", call, cos, Z0, solver=deq.Anderson(memory=3), solver_memory=4)
            self.error("which is a gradient; expected a solver", call, cos, Z0, solver=deq.Implicit())
        self.error("gradient_steps is not an option of gradient 'implicit'", deq.equilibrate, cos, Z0, gradient_steps=3)
        self.error("^gradient is not an option of solve", deq.solve, cos, Z0, gradient="implicit")
        self.error("scope|causal", deq.solve, cos, Z0, solver=deq.Broyden(scope="causal"))

    def test_three_spellings_are_one(self):
        wanted = deq.solve(cos, Z1, solver=deq.Anderson(memory=2, mixing=0.5), max_steps=3, rel_tol=0.0)
        for options in ({"solver": "anderson", "solver_memory": 2, "solver_mixing": 0.5},
                        {"solver_memory": torch.tensor(2), "solver_mixing": 0.5}):
            z, report = deq.solve(cos, Z1, max_steps=3, rel_tol=0, **options)
            self.assertTrue(z.equal(wanted[0]))
        z, _ = deq.solve(cos, Z1, solver=deq.Anderson, max_steps=3, rel_tol=0)
        self.assertTrue(z.equal(deq.solve(cos, Z1, max_steps=3, rel_tol=0)[0]))
        self.assertFalse(z.equal(wanted[0]))

    def test_each_option_does_something(self):
        W = torch.tensor([[0.5, 0.3, 0.0], [-0.4, 0.6, 0.2], [0.1, -0.3, 0.7]]).requires_grad_()

        def f(z):
            return torch.tanh(z @ W + torch.tensor([[0.3, -0.2, 0.5], [1.0, 0.1, -0.7]]))

        def outcome(**options):
            z, report = deq.equilibrate(f, Z0, **options)
            (g,) = torch.autograd.grad(z.sum(), W)
            return torch.cat([z.detach().flatten(), g.flatten()])

        base = {"max_steps": 5, "rel_tol": 0.0}
        pairs = [
            ({}, {"max_steps": 3}), ({}, {"rel_tol": 0.5}), ({}, {"abs_tol": 0.5}), ({}, {"solver_memory": 2}),
            ({}, {"solver_mixing": 0.5}), ({}, {"solver_ridge": 1.0}), ({}, {"solver_scope": "whole"}),
            ({"solver": "picard"}, {"solver_damping": 0.5}), ({"solver": "broyden"}, {"solver_memory": 1}),
            ({"gradient_rel_tol": 0.0}, {"gradient_max_steps": 2}), ({"gradient_max_steps": 9}, {"gradient_rel_tol": 0.3}),
            ({"gradient_max_steps": 4, "gradient_rel_tol": 0.0}, {"gradient_solver": "picard"}),
            ({"gradient_max_steps": 4, "gradient_rel_tol": 0.0}, {"gradient_solver_memory": 1}),
            ({"gradient_max_steps": 3, "gradient_rel_tol": 0.0}, {"gradient_shine": 3}),
            ({"gradient": "phantom"}, {"gradient_steps": 2}), ({"gradient": "phantom"}, {"gradient_damping": 0.5}),
            ({"gradient": "unrolled"}, {"gradient_steps": 2}), ({"gradient": "checkpointed"}, {"gradient_damping": 0.5}),
        ]
        for given, change in pairs:
            before, after = outcome(**{**base, **given}), outcome(**{**base, **given, **change})
            self.assertFalse(before.equal(after), change)

    def test_defaults_are_those_of_the_command(self):
        by_name = {info.key: info for info in deq._core.equilibrium_options()}
        self.assertEqual(by_name["max_steps"].value, "40")
        self.assertEqual(by_name["rel_tol"].value, "0.001")
        signature = inspect.signature(deq.Anderson)
        self.assertEqual(signature.parameters["memory"].default, 8)
        self.assertEqual(signature.parameters["scope"].default, "sample")
        self.assertEqual(inspect.signature(deq.Implicit).parameters["rel_tol"].default, 1e-3)
        self.assertIn("solver", inspect.signature(deq.Implicit).parameters)
        self.assertNotIn("solver_memory", inspect.signature(deq.Implicit).parameters)

    def test_documentation(self):
        for name in deq.__all__:
            if name not in ("Map",):
                self.assertTrue(inspect.getdoc(getattr(deq, name)), name)
        self.assertIn("memory: past iterates that are mixed", deq.Anderson.__doc__)
        self.assertIn("gradient_shine", deq.equilibrate.__doc__)

    def test_alternatives_are_values(self):
        self.assertEqual(deq.Anderson(memory=3), deq.Anderson(memory=3))
        self.assertNotEqual(deq.Anderson(memory=3), deq.Anderson())
        self.assertEqual(repr(deq.Implicit(solver=deq.Broyden(memory=3))), "Implicit(solver=Broyden(memory=3))")
        self.assertEqual(len({deq.Anderson(), deq.Anderson(memory=8.0 // 1 and 8), deq.Picard()}), 3)

    def test_stubs_are_those_of_the_fields(self):
        package = pathlib.Path(deq.__file__).parent
        made = subprocess.run([sys.executable, "-m", "deq._stubs"], capture_output=True, text=True, check=True)
        self.assertEqual(made.stdout, (package / "__init__.pyi").read_text() + (package / "cells.pyi").read_text(),
                         "the stubs are old: python3 -m deq._stubs SOURCE writes them")
        self.assertTrue((package / "py.typed").exists())
        for name in deq.__all__:
            self.assertIn(name, made.stdout)


if __name__ == "__main__":
    unittest.main()
