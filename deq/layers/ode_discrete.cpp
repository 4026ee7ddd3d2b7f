#include "deq/layers/ode_discrete.h"

#include <ATen/ATen.h>

#include <numeric>

namespace deq::ode {

using at::Tensor;

namespace {

std::vector<int64_t> first(const std::vector<int64_t>& list, int64_t count) {
  return {list.begin(), list.begin() + count};
}

class DiscreteAdjoint : public Adjoint {
 public:
  DiscreteAdjoint(std::shared_ptr<Stepper> stepper, Record record, Checkpoints states)
      : stepper_(std::move(stepper)),
        record_(std::move(record)),
        states_(std::move(states)),
        queue_(record_) {}

  Tensor pull(const Tensor& grad, TapedField& f) override {
    grad_ = grad.contiguous();
    const int64_t B = grad.size(1);
    order_ = at::tensor(queue_.samples(), at::kLong).to(grad.device());
    lambda_ = at::zeros({B, grad.size(2)}, grad.options());
    open_.clear();
    for (const int64_t sample : queue_.samples())
      open_.push_back(record_.places[size_t(sample)].size());
    const int64_t stride = states_.stride(), longest = queue_.longest();
    for (int64_t from = (longest - 1) / stride * stride; from >= 0 && longest > 0; from -= stride) {
      const int64_t to = std::min(from + stride, longest);
      std::vector<Tensor> y = steps_again(from, to);
      for (int64_t n = to - 1; n >= from; --n) {
        step_back(n, y[size_t(n - from)], f);
        y.pop_back();
      }
    }
    for (int64_t r = 0; r < B; ++r)
      take_places(r, -1, [&](const Place& place) {
        lambda_[r].add_(grad_[place.slot][queue_.samples()[size_t(r)]]);
      });
    Tensor result = at::empty_like(lambda_);
    result.index_copy_(0, order_, lambda_);
    return result;
  }

 private:
  /// The states before steps from, ..., to - 1.
  std::vector<Tensor> steps_again(int64_t from, int64_t to) {
    const auto samples = first(queue_.samples(), queue_.count(from));
    const Tensor start = states_.at_step(from, order_.narrow(0, 0, int64_t(samples.size())));
    std::vector<Tensor> states{start};
    if (to == from + 1) return states;
    Work work(start.size(0), start.size(1), stepper_->stages(), start.options());
    work.fill(samples, start);
    for (int64_t n = from; n + 1 < to; ++n) {
      keep_first(work, queue_.count(n));
      for (size_t r = 0; r < work.sample.size(); ++r) {
        work.t[r] = record_.t[size_t(work.sample[r])][size_t(n)];
        work.h[r] = record_.h[size_t(work.sample[r])][size_t(n)];
      }
      stepper_->attempt(work);
      stepper_->advance(work, std::vector<char>(work.sample.size(), 1));
      states.push_back(work.y.narrow(0, 0, queue_.count(n + 1)).clone());
    }
    return states;
  }

  static void keep_first(Work& work, int64_t count) {
    if (count == work.rows) return;
    std::vector<int64_t> kept(static_cast<size_t>(count));
    std::iota(kept.begin(), kept.end(), int64_t(0));
    work.keep(kept);
  }

  template <class Visit>
  void take_places(int64_t r, int64_t n, const Visit& visit) {
    const auto& places = record_.places[size_t(queue_.samples()[size_t(r)])];
    size_t& open = open_[size_t(r)];
    while (open > 0 && places[open - 1].step == n) visit(places[--open]);
  }

  void step_back(int64_t n, const Tensor& y, TapedField& f) {
    const int64_t c = queue_.count(n), B = grad_.size(1);
    std::vector<double> t, h, scale, weights;
    std::vector<ops::StagePoint> inner;
    for (int64_t r = 0; r < c; ++r) {
      const int64_t sample = queue_.samples()[size_t(r)];
      t.push_back(record_.t[size_t(sample)][size_t(n)]);
      h.push_back(record_.h[size_t(sample)][size_t(n)]);
      scale.push_back(stepper_->scaled_by_h() ? h.back() : 1.0);
      take_places(r, n, [&](const Place& place) {
        if (place.theta == 1) {
          ends_.push_back({r, place.slot * B + sample, 0.0});
          return;
        }
        inner.push_back({r, place.slot * B + sample, scale.back()});
        const auto own = stepper_->weights(place.theta);
        weights.insert(weights.end(), own.begin(), own.end());
      });
    }
    const int64_t stages = inner.empty() ? stepper_->own_stages() : stepper_->stages();
    const Tensor k = at::zeros({stages, c, y.size(1)}, y.options());
    const Tensor none = k.narrow(0, 0, 0);
    ops::stage_points_transposed(lambda_, none, grad_, ends_, {});
    ends_.clear();
    auto b = stepper_->weights(1);
    b.resize(size_t(stages));
    ops::stage_spread(k, lambda_, b, scale, c);
    ops::stage_points_transposed(lambda_, k, grad_, inner, weights);
    const Tensor rows = order_.narrow(0, 0, c);
    if (stepper_->tableau()) {
      back_through_stages(f, y, t, h, rows, k);
      return;
    }
    const auto taped = f.record(
        y, [&](const Tensor& leaf) { return stepper_->taped(f.field(), leaf, t, h, rows); });
    std::vector<Tensor> u;
    for (size_t j = 0; j < taped.values.size(); ++j) u.push_back(k[int64_t(j)]);
    lambda_.narrow(0, 0, c).add_(f.pull(taped, u));
  }

  /// k: what each stage's value receives.
  void back_through_stages(TapedField& f, const Tensor& y, const std::vector<double>& t,
                           const std::vector<double>& h, const Tensor& rows, const Tensor& k) {
    const Tableau& tableau = *stepper_->tableau();
    const int64_t c = y.size(0);
    const Tensor values = at::empty_like(k);
    std::vector<TapedField::Evaluation> stages;
    for (int64_t i = 0; i < k.size(0); ++i) {
      Tensor state = y;
      if (i > 0) {
        state = at::empty_like(y);
        ops::stage_sum(state, y, values, tableau.a[size_t(i)], h, c);
      }
      stages.push_back(f(times_at(t, h, tableau.c[size_t(i)], y), state, rows));
      store(values, int(i), stages.back().values[0].detach(), c);
    }
    const Tensor lambda = lambda_.narrow(0, 0, c);
    for (int64_t i = k.size(0) - 1; i >= 0; --i) {
      const Tensor passed = f.pull(stages.back(), {k[i]});
      stages.pop_back();
      lambda.add_(passed);
      ops::stage_spread(k, passed, tableau.a[size_t(i)], h, c);
    }
  }

  std::shared_ptr<Stepper> stepper_;
  Record record_;
  Checkpoints states_;
  Queue queue_;
  Tensor grad_, order_, lambda_;  // lambda: rows in the queue's order
  std::vector<size_t> open_;      // places that are left, by row
  std::vector<ops::StagePoint> ends_;
};

}  // namespace

std::unique_ptr<Adjoint> discrete_adjoint(std::shared_ptr<Stepper> stepper, Record record,
                                          Checkpoints states) {
  return std::make_unique<DiscreteAdjoint>(std::move(stepper), std::move(record),
                                           std::move(states));
}

Tensor unrolled_values(const Stepper& stepper, const Field& f, const Record& record,
                       const Tensor& y0, const Tensor& values) {
  const Queue queue(record);
  const int64_t B = y0.size(0);
  const Tensor order = at::tensor(queue.samples(), at::kLong).to(y0.device());
  Tensor y = y0.index_select(0, order);
  std::vector<Tensor> pieces;
  std::vector<int64_t> positions;
  const auto gather = [&](int64_t n, int64_t count, const std::vector<Tensor>& k,
                          const std::vector<double>& scale) {
    std::vector<int64_t> rows;
    std::vector<std::vector<double>> weights;
    for (int64_t r = 0; r < count; ++r) {
      const int64_t sample = queue.samples()[size_t(r)];
      for (const Place& place : record.places[size_t(sample)]) {
        if (place.step != n) continue;
        rows.push_back(r);
        positions.push_back(place.slot * B + sample);
        weights.push_back(n < 0 ? std::vector<double>{} : stepper.weights(place.theta));
        for (double& weight : weights.back()) weight *= scale[size_t(r)];
      }
    }
    if (rows.empty()) return;
    const Tensor index = at::tensor(rows, at::kLong).to(y0.device());
    Tensor piece = y.index_select(0, index);
    for (size_t j = 0; j < k.size(); ++j) {
      std::vector<double> factor;
      for (const auto& own : weights) factor.push_back(own[j]);
      piece = piece + column_of(factor, y0) * k[j].index_select(0, index);
    }
    pieces.push_back(piece);
  };
  gather(-1, B, {}, {});
  for (int64_t n = 0; n < queue.longest(); ++n) {
    const int64_t c = queue.count(n);
    y = y.narrow(0, 0, c);
    std::vector<double> t, h;
    for (int64_t r = 0; r < c; ++r) {
      t.push_back(record.t[size_t(queue.samples()[size_t(r)])][size_t(n)]);
      h.push_back(record.h[size_t(queue.samples()[size_t(r)])][size_t(n)]);
    }
    const std::vector<double> scale = stepper.scaled_by_h() ? h : std::vector<double>(h.size(), 1);
    const auto k = stepper.taped(f, y, t, h, order.narrow(0, 0, c));
    gather(n, c, k, scale);
    const auto b = stepper.weights(1);
    Tensor sum;
    for (size_t j = 0; j < k.size(); ++j) {
      if (b[j] == 0) continue;
      sum = sum.defined() ? sum + b[j] * k[j] : b[j] * k[j];
    }
    y = y + column_of(scale, y0) * sum;
  }
  if (pieces.empty()) return values;
  return values.reshape({values.size(0) * values.size(1), values.size(2)})
      .index_copy(0, at::tensor(positions, at::kLong).to(y0.device()), at::cat(pieces))
      .view(values.sizes());
}

}  // namespace deq::ode
