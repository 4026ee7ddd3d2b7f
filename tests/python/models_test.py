"""deq.load: the repository's trained model against the command, and python3 -m deq."""

import copy
import json
import math
import pathlib
import signal
import subprocess
import sys
import tempfile
import time
import unittest

import torch

import deq
from deq._command import path as command

RUN = pathlib.Path(__file__).resolve().parents[2] / "models" / "shakespeare"
TEXT = ("ROMEO:\nBut soft, what light through yonder window breaks?\nIt is the east, and Juliet is the sun.\n" * 8)


def deq_command(*arguments):
    return subprocess.run([command(), *map(str, arguments)], capture_output=True, text=True, timeout=600)


class Loaded(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.model = deq.load(RUN)

    def test_config(self):
        self.assertEqual(self.model.config["cell_width"], 256)
        self.assertEqual(self.model.config["rel_tol"], 0.001)
        self.assertIs(self.model.config["cell_causal"], True)
        self.assertEqual(self.model.config["task"], "characters")

    def test_forward(self):
        ids = self.model.encode("the quick brown fox")
        self.assertEqual(self.model.decode(ids), "the quick brown fox")
        tokens = ids[None, :-1]
        with torch.no_grad():
            out = self.model(tokens, rel_tol=1e-5, max_steps=100)
            self.assertTrue(out.report.converged)
            logp = self.model.log_probabilities(out.z)
            loss = self.model.loss(out.z, ids[None, 1:])
        self.assertEqual(logp.shape, (1, 18, self.model.vocabulary_size))
        self.assertLess((logp.exp().sum(-1) - 1).abs().max().item(), 1e-4)
        self.assertLess((loss + logp.gather(2, ids[None, 1:, None])[..., 0]).abs().max().item(), 1e-4)
        self.assertGreater(self.model(tokens, rel_tol=1e-2).report.worst_residual, out.report.worst_residual)

    def test_histories(self):
        ids = self.model.encode(TEXT[:60])[None]
        with torch.no_grad():
            whole = self.model(ids, rel_tol=1e-6, max_steps=100)
            first = self.model(ids[:, :40], history=40, rel_tol=1e-6, max_steps=100)
            self.assertEqual(first.histories[0].length, 40)
            second = self.model(ids[:, 40:], first.histories, rel_tol=1e-6, max_steps=100)
        self.assertLess((second.z - whole.z[:, 40:]).abs().max().item(), 1e-3 * whole.z.abs().max().item())

    def test_gradients_and_training(self):
        model = copy.deepcopy(self.model).train()
        ids = model.encode(TEXT[:65])[None]
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
        losses = []
        for _ in range(4):
            optimizer.zero_grad()
            out = model(ids[:, :-1])
            loss = model.loss(out.z, ids[:, 1:]).mean()
            loss.backward()
            self.assertIsNotNone(out.report.adjoint)
            optimizer.step()
            losses.append(loss.item())
        self.assertLess(losses[-1], losses[0])
        self.assertTrue(all(p.grad is not None for p in model.parameters()))
        for name, tensor in self.model.named_parameters():
            self.assertFalse(tensor.equal(model.state_dict()[name]), name)

    def test_state_dict_is_the_file(self):
        file = deq.load_file(RUN / "best.safetensors")
        state = self.model.state_dict()
        self.assertEqual(sorted(file), sorted(state))
        self.assertTrue(all(file[name].equal(state[name]) for name in file))
        model = copy.deepcopy(self.model)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.zero_()
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "weights.safetensors"
            deq.save_file(state, path, {"note": "of a test"})
            model.load_state_dict(deq.load_file(path))
            with self.assertRaisesRegex(deq.Error, "missing|cannot|No such"):
                deq.load_file(pathlib.Path(folder) / "none.safetensors")
            damaged = path.read_bytes()[:-3] + b"abc"
            path.write_bytes(damaged)
            with self.assertRaises(deq.Error):
                deq.load_file(path)
        tokens = model.encode("the quick")[None]
        with torch.no_grad():
            self.assertTrue(model(tokens).z.equal(self.model(tokens).z))

    def test_generate_is_the_command_s(self):
        text, report = self.model.generate("ROMEO:", tokens=40, seed=5, top_k=20, temperature=0.8)
        said = deq_command("generate", RUN, "--prompt", "ROMEO:", "--tokens", 40, "--seed", 5, "--top-k", 20,
                           "--temperature", 0.8, "--quiet")
        self.assertEqual(said.stdout, text + "\n")
        self.assertEqual((report["tokens"], report["seed"]), (40, 5))
        self.assertEqual(report["converged"], 40)
        texts, _ = self.model.generate(["ROMEO:", "JULIET:"], tokens=40, seed=5, top_k=20, temperature=0.8)
        self.assertEqual(texts[0], text)
        heard = []
        self.model.generate("A", tokens=30, seed=1, on_token=lambda text, token: heard.append(token) or len(heard) < 5)
        self.assertLess(len(heard), 30)
        self.assertFalse(self.model.training)

    def test_generate_solves_to_the_end(self):
        damped = {"solver": "picard", "solver_damping": 0.3, "rel_tol": 1e-5}
        _, report = self.model.generate("ROMEO:", tokens=8, seed=5, **damped)
        self.assertEqual(report["converged"], 8)  # in more steps than the run's 16
        self.assertGreater(report["evaluations"] / 8, 16)
        _, report = self.model.generate("ROMEO:", tokens=8, seed=5, max_steps=5, **damped)
        self.assertEqual(report["converged"], 0)
        texts, _ = self.model.generate(["A", "A"], tokens=20, seed=1)
        self.assertNotEqual(texts[0], texts[1])

    def test_generate_leaves_the_mode(self):
        model = copy.deepcopy(self.model).train()
        tokens = model.encode("the quick brown fox")[None]
        model.generate("A", tokens=2, seed=1, weight_type="bfloat16")
        with torch.no_grad():
            self.assertFalse(model(tokens).z.equal(model(tokens).z))  # dropout
            model.eval()
            self.assertTrue(model(tokens).z.equal(self.model(tokens).z))

    def test_generate_errors(self):
        for options, message in (({"temperature": 0}, "temperature"), ({"top_j": 3}, "unknown option 'top_j'.*top_k"),
                                 ({"greedy": True, "seed": 3}, "seed = 3"), ({"top_k": 1, "seed": 3}, "with top_k = 1"),
                                 ({"top_k": 999}, "top_k = 999: it leaves out none of the "), ({"tokens": 0}, "tokens = 0")):
            with self.assertRaisesRegex(deq.Error, message):
                self.model.generate("A", **options)
        with self.assertRaises(ZeroDivisionError):
            self.model.generate("A", on_token=lambda text, token: 1 / 0)
        with self.assertRaisesRegex(deq.Error, "the text"):
            self.model.generate("\u2603")

    def test_evaluate_is_the_command_s(self):
        with tempfile.TemporaryDirectory() as folder:
            file = pathlib.Path(folder) / "text.txt"
            file.write_text(TEXT)
            got = self.model.evaluate("all", file, eval_lanes=2, max_steps=30)
            said = json.loads(deq_command("eval", RUN, "--data", file, "--split", "all", "--eval-lanes", 2,
                                          "--max-steps", 30, "--json").stdout)
            del said["seconds"], got["seconds"], said["weight_type"]
            self.assertEqual(got, said)
            self.assertTrue(math.isfinite(got["loss"]))
            self.assertNotEqual(self.model.evaluate("all", file, eval_lanes=4)["loss"], got["loss"])
            with self.assertRaisesRegex(deq.Error, "eval_lane"):
                self.model.evaluate("all", file, eval_lane=4)
        with self.assertRaisesRegex(deq.Error, "no file"):
            self.model.evaluate("all", "nowhere.txt")

    def test_load_errors(self):
        with self.assertRaisesRegex(deq.Error, "run folder 'nowhere' is missing"):
            deq.load("nowhere")
        with self.assertRaisesRegex(deq.Error, "unknown checkpoint 'first'; known: best, last"):
            deq.load(RUN, "first")
        with self.assertRaisesRegex(deq.Error, "unknown option 'rel_tolerance'; the nearest is 'rel_tol'"):
            self.model(self.model.encode("a")[None], rel_tolerance=1)

    def test_interrupts(self):
        for work in ("model.generate('A', tokens=100000)", "model.evaluate('all', sys.argv[1], eval_lanes=2)"):
            with tempfile.TemporaryDirectory() as folder:
                file = pathlib.Path(folder) / "text.txt"
                file.write_text(TEXT * 100)
                code = (f"import sys, time, deq\nmodel = deq.load({str(RUN)!r})\nprint('running', flush=True)\n"
                        f"try: {work}\nexcept KeyboardInterrupt: print('interrupted', time.time())")
                child = subprocess.Popen([sys.executable, "-c", code, str(file)], stdout=subprocess.PIPE, text=True)
                self.addCleanup(child.kill)
                self.assertEqual(child.stdout.readline(), "running\n")
                time.sleep(1)
                start = time.time()
                child.send_signal(signal.SIGINT)
                word, at = child.communicate(timeout=60)[0].split()
                self.assertEqual((word, child.returncode), ("interrupted", 0))
                self.assertLess(float(at) - start, 1.0)


class Command(unittest.TestCase):
    """python3 -m deq is the command."""

    def run_module(self, *arguments):
        return subprocess.run([sys.executable, "-m", "deq", *map(str, arguments)], capture_output=True, text=True,
                              timeout=600)

    def test_same_words_and_codes(self):
        for arguments in (["--version"], ["train", "--help"], ["trian"], ["eval", "nowhere"]):
            here, there = self.run_module(*arguments), deq_command(*arguments)
            self.assertEqual((here.returncode, here.stdout, here.stderr), (there.returncode, there.stdout, there.stderr))
        self.assertIn(deq.__version__, self.run_module("--version").stdout)

    def test_trains_what_load_reads(self):
        with tempfile.TemporaryDirectory() as folder:
            run = pathlib.Path(folder) / "run"
            text = pathlib.Path(folder) / "text.txt"
            text.write_text(TEXT)
            done = self.run_module("train", run, "--data", text, "--task", "characters", "--cell-width", 16,
                                   "--cell-heads", 2, "--cell-inner", 16, "--length", 16, "--history", 16, "--batch", 2,
                                   "--eval-length", 16, "--eval-history", 16, "--eval-lanes", 2, "--steps", 3)
            self.assertEqual(done.returncode, 0, done.stderr)
            model = deq.load(run)
            self.assertEqual(model.config["steps"], 3)
            self.assertEqual(model.generate("R", tokens=3, seed=1)[1]["tokens"], 3)
            numbers = model.evaluate("test")
            self.assertEqual(numbers["split"], "test")

    def test_info_says_that_it_is_there(self):
        said = json.loads(deq_command("info", "--json").stdout)
        self.assertIn("import deq", said["python"])
        self.assertIn("Python    import deq", deq_command("info").stdout)


if __name__ == "__main__":
    unittest.main()
