"""deq.cells: modules of torch over the core's memory."""

import copy
import io
import threading
import time
import unittest

import torch

import deq

SMALL = {"width": 8, "heads": 2, "inner": 16}


def plain(cell, x, steps=300):
    z = torch.zeros(*x.shape[:2], cell.state_width, dtype=x.dtype)
    f = cell.bind(x)
    for _ in range(steps):
        z = f(z)
    return z


class Cells(unittest.TestCase):
    def cell(self, **options):
        torch.manual_seed(0)
        return deq.cells.Transformer(init_std=0.3, **{**SMALL, **options})

    def test_all_of_the_list_are_there(self):
        names = [name for name, _ in deq._core.alternatives("cell")]
        self.assertEqual(len(deq.cells.__all__), len(names) + 1)
        for name in ("transformer", "trellisnet", "lstm"):
            self.assertIn(name, names)
        for cell in deq.cells.__all__[1:]:
            made = getattr(deq.cells, cell)
            self.assertTrue(issubclass(made, torch.nn.Module))
            self.assertIn("Options:", made.__doc__)

    def test_gradients_reach_python(self):
        cell = self.cell().double()
        x = torch.randn(2, 5, 8, dtype=torch.double, requires_grad=True)
        for module in (deq.Layer(cell, rel_tol=1e-11, max_steps=200, gradient=deq.Implicit(rel_tol=1e-11, max_steps=200)),
                       deq.Layer(lambda z, x: cell(z, x), rel_tol=1e-11, max_steps=200,
                                 gradient=deq.Implicit(rel_tol=1e-11, max_steps=200))):
            z, report = module.equilibrate(x)
            self.assertTrue(report.converged)
            want = plain(cell, x)
            self.assertLess((z - want).abs().max().item(), 1e-8)
            leaves = [x, *cell.parameters()]
            weight = torch.randn_like(z)
            for got, exact in zip(torch.autograd.grad((z * weight).sum(), leaves),
                                  torch.autograd.grad((want * weight).sum(), leaves)):
                self.assertLess((got - exact).abs().max().item(), 1e-6)

    def test_trains(self):
        cell = self.cell()
        layer = deq.Layer(cell, solver=deq.Anderson(scope="causal"))
        readout = torch.nn.Linear(8, 8)
        parameters = [*layer.parameters(), *readout.parameters()]
        self.assertTrue(all(isinstance(p, torch.nn.Parameter) for p in parameters))
        self.assertEqual({name.split(".")[0] for name, _ in layer.named_parameters()}, {"f"})
        optimizer = torch.optim.Adam(parameters, lr=0.01)
        x = torch.randn(4, 6, 8)
        losses = []
        for _ in range(30):
            optimizer.zero_grad()
            loss = (readout(layer(x)) - x.roll(1, 1)).pow(2).mean()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        self.assertLess(losses[-1], 0.7 * losses[0])

    def test_state_dict_copy_and_pickle(self):
        cell, other = self.cell(), deq.cells.Transformer(**SMALL)
        x, z = torch.randn(2, 3, 8), torch.randn(2, 3, 8)
        want = cell(z, x)
        self.assertFalse(other(z, x).equal(want))
        other.load_state_dict(cell.state_dict())
        self.assertTrue(other(z, x).equal(want))
        twin = copy.deepcopy(cell)
        with torch.no_grad():
            for parameter in cell.parameters():
                parameter.mul_(2)
        self.assertTrue(twin(z, x).equal(want))
        self.assertFalse(cell(z, x).equal(want))
        buffer = io.BytesIO()
        torch.save(twin, buffer)
        buffer.seek(0)
        self.assertTrue(torch.load(buffer, weights_only=False)(z, x).equal(want))
        self.assertIs(twin.double(), twin)
        self.assertEqual(twin(z.double(), x.double()).dtype, torch.double)
        self.assertLess((twin(z.double(), x.double()) - want).abs().max().item(), 1e-5)

    def test_modes(self):
        cell = self.cell(dropout_hidden=0.5)
        x, z = torch.randn(2, 3, 8), torch.randn(2, 3, 8)
        self.assertFalse(cell(z, x).equal(cell(z, x)))
        f = cell.bind(x)
        self.assertTrue(f(z).equal(f(z)))
        cell.eval()
        self.assertTrue(cell(z, x).equal(cell(z, x)))

    def test_states_of_another_width(self):
        torch.manual_seed(0)
        cell = deq.cells.Trellisnet(hidden=6, output=4, init_std=0.1)
        self.assertNotEqual(cell.state_width, cell.input_width)
        z, report = deq.Layer(cell, max_steps=100).equilibrate(torch.randn(2, 5, cell.input_width))
        self.assertTrue(report.converged)
        self.assertEqual(z.shape, (2, 5, cell.state_width))
        self.assertEqual(cell.output(z).shape, (2, 5, cell.output_width))
        self.assertTrue(cell.causal and cell.injects)

    def test_other_threads_run_meanwhile(self):
        cell = deq.cells.Transformer(width=64, heads=4, inner=256)
        x = torch.randn(4, 128, 64)
        counted, done = [0], threading.Event()

        def count():
            while not done.is_set():
                counted[0] += 1
                time.sleep(0)

        thread = threading.Thread(target=count)
        thread.start()
        before = counted[0]
        with torch.no_grad():
            deq.solve(cell.bind(x), torch.zeros(4, 128, 64), max_steps=40, rel_tol=0)
        meanwhile = counted[0] - before
        done.set()
        thread.join()
        self.assertGreater(meanwhile, 20)

    def test_past(self):
        cell = self.cell().eval()
        x = torch.randn(1, 6, 8)
        state = torch.randn(1, 6, 8)
        with torch.no_grad():
            rest = cell.bind(x)(state)[:, 4:]
            behind = cell.bind(x[:, 4:], past=(state[:, :4], x[:, :4]))(state[:, 4:])
            alone = cell.bind(x[:, 4:])(state[:, 4:])
        self.assertLess((behind - rest).abs().max().item(), 1e-5)
        self.assertGreater((alone - rest).abs().max().item(), 1e-2)

    def test_errors(self):
        with self.assertRaisesRegex(deq.Error, "unknown option 'widht'; the nearest is 'width'"):
            deq.cells.Transformer(widht=8)
        with self.assertRaisesRegex(deq.Error, "dropout_hidden = 2"):
            deq.cells.Transformer(dropout_hidden=2.0)
        with self.assertRaisesRegex(deq.Error, r"TransformerCell: x has shape \[2, 3, 9\]"):
            self.cell()(torch.zeros(2, 3, 8), torch.zeros(2, 3, 9))
        cell = self.cell()
        name, parameter = next(iter(cell.named_parameters()))
        owner = cell
        *path, leaf = name.split(".")
        for part in path:
            owner = getattr(owner, part)
        setattr(owner, leaf, torch.nn.Parameter(parameter.detach().clone()))
        with self.assertRaisesRegex(deq.Error, "was replaced by another tensor"):
            cell(torch.zeros(2, 3, 8), torch.zeros(2, 3, 8))


if __name__ == "__main__":
    unittest.main()
