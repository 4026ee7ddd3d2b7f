#include "deq/distributed/gradient_sum.h"

#include <ATen/ATen.h>
#include <ATen/Dispatch.h>
#include <c10/core/GradMode.h>
#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/utils/lambda_post_hook.h>
#include <torch/csrc/autograd/variable.h>

#include <algorithm>

#include "deq/base/error.h"
#include "deq/distributed/job_queue.h"
#include "deq/distributed/rendezvous.h"

namespace deq {

using at::Tensor;

namespace {

constexpr int64_t kMark = -1;  // in an order

/// a += b, by the calling thread alone.
void add_to(const Tensor& a, const Tensor& b) {
  AT_DISPATCH_FLOATING_TYPES(a.scalar_type(), "ordered sum", [&] {
    auto* to = a.data_ptr<scalar_t>();
    const auto* from = b.data_ptr<scalar_t>();
    for (int64_t i = 0; i < a.numel(); ++i) to[i] += from[i];
  });
}

/// Parameters whose gradients travel together: one behind the other, then for each whether it has
/// one, then zeros until the processes can share it.
struct Bucket {
  std::vector<int64_t> parameters;
  int64_t slice = 0;             // numbers of a process
  std::vector<Tensor> received;  // of own shard 0, 1, ...: (processes, slice)
  Tensor sum;                    // (processes * slice)
};

}  // namespace

struct GradientSum::Work {
  std::vector<Tensor> parameters;
  int64_t own_shards;
  std::shared_ptr<ProcessGroup> group;     // of the calling thread
  std::shared_ptr<ProcessGroup> exchange;  // of the queue's
  int64_t most;                            // numbers in a bucket
  std::map<int64_t, std::vector<Bucket>> kinds;
  JobQueue jobs;
  std::vector<std::pair<std::shared_ptr<torch::autograd::Node>, uintptr_t>> hooks;

  std::vector<Bucket>* buckets = nullptr;
  bool learning = false;
  bool armed = false;          // within the last pass of a shard
  int64_t shard = -1;          // of own
  size_t sent = 0;             // buckets of this shard
  std::vector<int64_t> ready;  // how often, in this pass
  std::vector<int64_t> order;  // in which parameters were, with marks

  Bucket bucket_of(std::vector<int64_t> held) const {
    int64_t numbers = int64_t(held.size());
    for (const int64_t p : held) numbers += parameters[size_t(p)].numel();
    return {std::move(held), (numbers + group->size() - 1) / group->size(), {}, {}};
  }

  std::vector<Bucket> buckets_of(const std::vector<int64_t>& order) const {
    std::vector<Bucket> made;
    std::vector<int64_t> held;
    int64_t numbers = 0;
    const auto close = [&] {
      if (!held.empty()) made.push_back(bucket_of(std::move(held)));
      held = {};
      numbers = 0;
    };
    for (const int64_t p : order) {
      if (p != kMark) {
        held.push_back(p);
        numbers += parameters[size_t(p)].numel();
      }
      if (p == kMark || numbers >= most) close();
    }
    close();
    return made;
  }

  /// Rank 0's, of parameters that were ready once, and then of all others.
  std::vector<int64_t> agreed_order() const {
    std::vector<int64_t> full;
    for (const int64_t p : order) {
      if (p == kMark || ready[size_t(p)] == 1) full.push_back(p);
    }
    full.push_back(kMark);
    for (size_t p = 0; p < parameters.size(); ++p) {
      if (ready[p] != 1) full.push_back(int64_t(p));
    }
    full.resize(2 * parameters.size() + 16, kMark);  // of one length on all
    Tensor held = at::tensor(full, at::kLong);
    group->broadcast(held);
    return {held.data_ptr<int64_t>(), held.data_ptr<int64_t>() + held.numel()};
  }

  /// The gradients of a shard as they travel.
  Tensor packed(const Bucket& bucket) const {
    const Tensor flat =
        at::empty({group->size() * bucket.slice},
                  parameters.front().options().requires_grad(false).device(at::kCPU));
    int64_t at = 0;
    std::vector<double> flags;
    for (const int64_t p : bucket.parameters) {
      const Tensor& gradient = parameters[size_t(p)].grad();
      const int64_t numbers = parameters[size_t(p)].numel();
      const Tensor place = flat.narrow(0, at, numbers);
      gradient.defined() ? place.copy_(gradient.reshape(-1)) : place.zero_();
      flags.push_back(gradient.defined() ? 1 : 0);
      at += numbers;
    }
    flags.resize(size_t(flat.numel() - at), 0);
    flat.narrow(0, at, int64_t(flags.size())).copy_(at::tensor(flags, at::kDouble));
    return flat;
  }

  void send(Bucket& bucket) {
    const Tensor flat = packed(bucket);
    if (!group->several()) {
      shard == 0 ? void(bucket.sum = flat) : add_to(bucket.sum, flat);
      return;
    }
    jobs.add([this, &bucket, flat, last = shard + 1 == own_shards] {
      bucket.received.push_back(exchange->exchange(flat.view({group->size(), bucket.slice})));
      if (last) add_up(bucket);
    });
  }

  /// Rank r has shards r K / N, ...: its first, its second, ... were received one after the other.
  void add_up(Bucket& bucket) {
    const Tensor sum = bucket.received.front()[0];
    for (int64_t rank = 0; rank < group->size(); ++rank) {
      for (size_t k = rank == 0 ? 1 : 0; k < bucket.received.size(); ++k)
        add_to(sum, bucket.received[k][rank]);
    }
    bucket.sum = exchange->gather(sum).flatten();
    bucket.received.clear();
  }

  void is_ready(int64_t parameter) {
    if (!armed) return;
    int64_t& times = ready[size_t(parameter)];
    DEQ_CHECK(times == 0 || !has_gone(parameter),
              "a gradient was ready twice in a pass; expected once, as in the first step");
    if (times++ == 0) order.push_back(parameter);
    if (!learning) send_what_is_ready();
  }

  bool has_gone(int64_t parameter) const {
    for (size_t b = 0; b < sent; ++b) {
      const std::vector<int64_t>& gone = (*buckets)[b].parameters;
      if (std::find(gone.begin(), gone.end(), parameter) != gone.end()) return true;
    }
    return false;
  }

  /// All but the last bucket, which holds what may come more than once or never.
  void send_what_is_ready() {
    while (sent + 1 < buckets->size()) {
      Bucket& next = (*buckets)[sent];
      for (const int64_t p : next.parameters) {
        if (ready[size_t(p)] == 0) return;
      }
      send(next);
      ++sent;
    }
  }

  void unpack(const Bucket& bucket) {
    int64_t at = 0, flag = 0;
    for (const int64_t p : bucket.parameters) flag += parameters[size_t(p)].numel();
    for (const int64_t p : bucket.parameters) {
      Tensor& parameter = parameters[size_t(p)];
      const int64_t numbers = parameter.numel();
      const bool some = bucket.sum[flag++].item<double>() > 0;
      parameter.mutable_grad() =
          some ? bucket.sum.narrow(0, at, numbers).view(parameter.sizes()).to(parameter.device())
               : Tensor();
      at += numbers;
    }
  }
};

GradientSum::GradientSum(std::vector<Tensor> parameters, int64_t shards,
                         std::shared_ptr<ProcessGroup> group, int64_t bucket)
    : work_(std::make_unique<Work>()) {
  DEQ_CHECK(shards >= 1 && shards % group->size() == 0,
            "shards = {} with {} processes; expected a multiple", shards, group->size());
  work_->parameters = std::move(parameters);
  work_->own_shards = shards / group->size();
  work_->exchange = group->another();
  work_->group = std::move(group);
  work_->most = bucket;
  for (size_t p = 0; p < work_->parameters.size(); ++p) {
    const auto node = torch::autograd::impl::grad_accumulator(work_->parameters[p]);
    const auto hook = [work = work_.get(), p](const std::vector<Tensor>& outputs,
                                              const std::vector<Tensor>&) {
      work->is_ready(int64_t(p));
      return outputs;
    };
    work_->hooks.emplace_back(
        node, node->add_post_hook(std::make_unique<torch::autograd::utils::LambdaPostHook>(hook)));
  }
}

GradientSum::~GradientSum() {
  abandon(*work_->exchange);  // where a step ends by an error, others may never send their part
  work_->jobs.stop();
  for (auto& [node, key] : work_->hooks) node->del_post_hook(key);
}

void GradientSum::begin_step(int64_t kind) {
  Work& w = *work_;
  std::vector<Bucket>& buckets = w.kinds[kind];
  w.learning = buckets.empty();
  if (w.learning) {
    std::vector<int64_t> all;
    for (size_t p = 0; p < w.parameters.size(); ++p) all.push_back(int64_t(p));
    buckets = {w.bucket_of(all)};
  }
  w.buckets = &buckets;
  w.shard = -1;
}

void GradientSum::begin() {
  Work& w = *work_;
  for (Tensor& parameter : w.parameters) parameter.mutable_grad() = Tensor();
  ++w.shard;
  w.sent = 0;
  w.ready.assign(w.parameters.size(), 0);
  w.order.clear();
}

void GradientSum::last_pass() { work_->armed = true; }

void GradientSum::mark() {
  if (work_->armed) work_->order.push_back(kMark);
}

void GradientSum::end() {
  c10::AutoGradMode no_tape(false);
  Work& w = *work_;
  w.armed = false;
  for (; w.sent < w.buckets->size(); ++w.sent) w.send((*w.buckets)[w.sent]);
}

void GradientSum::finish() {
  c10::AutoGradMode no_tape(false);
  Work& w = *work_;
  w.jobs.finish();
  for (Bucket& bucket : *w.buckets) {
    w.unpack(bucket);
    bucket.sum = Tensor();
  }
  if (!w.learning) return;
  *w.buckets = w.buckets_of(w.agreed_order());
}

}  // namespace deq
