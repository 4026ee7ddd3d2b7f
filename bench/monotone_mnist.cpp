// A monotone equilibrium on MNIST: 784 -> width -> 10, batches of 128, Adam, as published (Winston
// and Kolter, NeurIPS 2020). Prints a JSON object for each epoch: processor time of training, test
// error, and the mean of each solve's steps over batches (the slowest row's).
//   monotone_mnist FOLDER [EPOCHS TOLERANCE WIDTH MEMORY ALPHA SEED RATE]
// FOLDER has MNIST's four files, as they are or with .gz behind their names.
#include <ATen/ATen.h>
#include <fmt/format.h>
#include <time.h>

#include <cstdio>
#include <filesystem>
#include <string>

#include "deq/cells/monotone.h"
#include "deq/data/idx.h"
#include "deq/gradients/implicit.h"
#include "deq/layers/equilibrium.h"
#include "deq/solvers/peaceman_rachford.h"
#include "deq/train/optimizer.h"

namespace {

using at::Tensor;

double processor_seconds() {
  timespec now{};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
  return double(now.tv_sec) + 1e-9 * double(now.tv_nsec);
}

Tensor load(const std::filesystem::path& folder, const std::string& name) {
  const auto path = folder / name;
  if (std::filesystem::exists(path)) return deq::read_idx(path);
  const std::string command = "gzip -dc '" + path.string() + ".gz'";
  std::FILE* pipe = ::popen(command.c_str(), "r");
  std::string bytes;
  char part[1 << 16];
  for (size_t n = 0; pipe && (n = std::fread(part, 1, sizeof part, pipe)) > 0;)
    bytes.append(part, n);
  if (pipe) ::pclose(pipe);
  return deq::parse_idx(bytes, path.string() + ".gz");
}

/// (N, 1, 784), of mean 0 and deviation 1 over the training images.
Tensor images(const std::filesystem::path& folder, const std::string& name) {
  const Tensor pixels = load(folder, name).to(at::kFloat).div_(255);
  return pixels.sub_(0.1307).div_(0.3081).view({pixels.size(0), 1, -1});
}

struct Options {
  int epochs = 3;
  double tolerance = 1e-2;
  int64_t width = 87, memory = 4;
  double alpha = 0;
  uint64_t seed = 1;
  double rate = 1e-3;
};

class Network {
 public:
  explicit Network(const Options& o)
      : cell_({.width = o.width, .input = 784, .margin = 1, .direct = 0}),
        solver_(deq::PeacemanRachford{.alpha = o.alpha, .memory = o.memory}),
        stop_{.max_steps = 100, .rel_tol = o.tolerance} {
    at::manual_seed(o.seed);
    at::NoGradGuard no_tape;
    for (auto& item : cell_.named_parameters()) {  // as LibTorch's linear layers begin
      const bool input = item.key().starts_with("inject");
      const double most = 1 / std::sqrt(input ? 784.0 : double(o.width));
      item.value().uniform_(-most, most);
      parameters[item.key()] = item.value();
    }
    const double most = 1 / std::sqrt(double(o.width));
    head_ = at::empty({10, o.width}).uniform_(-most, most).requires_grad_(true);
    bias_ = at::empty({10}).uniform_(-most, most).requires_grad_(true);
    parameters["head"] = head_;
    parameters["bias"] = bias_;
  }

  Tensor logits(const Tensor& x) {
    const deq::Bound f = cell_.bind(x, {});
    deq::EquilibriumOptions how{.solver = solver_,
                                .stop = stop_,
                                .gradient = deq::Implicit{.solver = solver_, .stop = stop_}};
    found = deq::equilibrium(f.f, at::zeros({x.size(0), 1, cell_.state_width()}), how);
    return at::linear(found.z.squeeze(1), head_, bias_);
  }

  deq::NamedTensors parameters;
  deq::Equilibrated found;

 private:
  deq::MonotoneCell cell_;
  deq::Solver solver_;
  deq::StopRule stop_;
  Tensor head_, bias_;
};

double steps_of(const deq::Report& report) { return double(report.steps.max().item<int64_t>()); }

void run(const std::filesystem::path& folder, const Options& o) {
  const Tensor x = images(folder, "train-images-idx3-ubyte"),
               y = load(folder, "train-labels-idx1-ubyte").to(at::kLong),
               test_x = images(folder, "t10k-images-idx3-ubyte"),
               test_y = load(folder, "t10k-labels-idx1-ubyte").to(at::kLong);
  Network network(o);
  deq::Descent descent(deq::Adam{}, network.parameters);
  for (int epoch = 1; epoch <= o.epochs; ++epoch) {
    const Tensor order = at::randperm(x.size(0));
    const double begin = processor_seconds();
    double loss_sum = 0, forward = 0, backward = 0, batches = 0, converged = 0;
    for (int64_t at = 0; at < x.size(0); at += 128, ++batches) {
      const Tensor rows = order.narrow(0, at, std::min<int64_t>(128, x.size(0) - at));
      const Tensor loss =
          at::cross_entropy_loss(network.logits(x.index_select(0, rows)), y.index_select(0, rows));
      descent.zero_gradients();
      loss.backward();
      descent.step(epoch <= 10 ? o.rate : 0.1 * o.rate);
      loss_sum += loss.item<double>();
      forward += steps_of(network.found.report);
      backward += steps_of(network.found.adjoint());
      converged += network.found.report.converged() && network.found.adjoint().converged();
    }
    const double seconds = processor_seconds() - begin;
    at::NoGradGuard no_tape;
    const Tensor wrong = network.logits(test_x).argmax(1).ne(test_y);
    fmt::print(
        "{{\"epoch\": {}, \"seconds\": {:.2f}, \"loss\": {:.4f}, \"test_error\": {:.4f}, "
        "\"forward_steps\": {:.2f}, \"backward_steps\": {:.2f}, \"converged\": {:.4f}}}\n",
        epoch, seconds, loss_sum / batches, wrong.to(at::kDouble).mean().item<double>(),
        forward / batches, backward / batches, converged / batches);
    std::fflush(stdout);
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) {
    fmt::print(stderr,
               "usage: monotone_mnist FOLDER [EPOCHS TOLERANCE WIDTH MEMORY ALPHA SEED RATE]\n");
    return 2;
  }
  try {
    Options o;
    if (argc > 2) o.epochs = std::stoi(argv[2]);
    if (argc > 3) o.tolerance = std::stod(argv[3]);
    if (argc > 4) o.width = std::stoll(argv[4]);
    if (argc > 5) o.memory = std::stoll(argv[5]);
    if (argc > 6) o.alpha = std::stod(argv[6]);
    if (argc > 7) o.seed = std::stoull(argv[7]);
    if (argc > 8) o.rate = std::stod(argv[8]);
    run(argv[1], o);
  } catch (const std::exception& error) {
    fmt::print(stderr, "monotone_mnist: {}\n", error.what());
    return 1;
  }
}
