#include "deq/layers/ode_reversible.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>

namespace deq::ode {

using at::Tensor;

namespace {

// Tolerances by which the two states may differ. Where y decays fast their difference grows as
// fast, with steps that either state's own error allows; shorter ones let the coupling damp it.
constexpr double kApart = 1000;

std::vector<double> moved(const std::vector<double>& t, const std::vector<double>& h) {
  std::vector<double> end(t);
  for (size_t r = 0; r < end.size(); ++r) end[r] += h[r];
  return end;
}

std::vector<double> negated(std::vector<double> h) {
  for (double& step : h) step = -step;
  return h;
}

class ReversibleStepper : public Stepper {
 public:
  ReversibleStepper(const Tableau& tableau, const Field& f, const ops::Allowance& allowed,
                    double coupling, int64_t fixed)
      : tableau_(tableau), f_(f), allowed_(allowed), coupling_(coupling), fixed_(fixed) {}

  std::vector<double> attempt(Work& work) override {
    const int64_t n = work.y.size(1) / 2, rows = work.rows;
    const Tensor state = work.head(work.y);
    const Tensor y = state.narrow(1, 0, n).contiguous(), z = state.narrow(1, n, n).contiguous();
    const Tensor k = stages(z, work.t, work.h, work.index(), tableau_.stages);
    const Tensor zero = at::zeros_like(z), there = at::empty_like(z), next = at::empty_like(z);
    ops::stage_sum(next, coupling_ * y + (1 - coupling_) * z, k, tableau_.b, work.h, rows);
    ops::stage_sum(there, z, k, tableau_.b, work.h, rows);
    auto errors = ops::stage_error(z, there, k, tableau_.error, work.h, allowed_, rows);
    const auto back = negated(work.h);
    const Tensor turned =
        stages(next, moved(work.t, work.h), back, work.index(), tableau_.stages - 1);
    const Tensor change = at::empty_like(z);
    ops::stage_sum(change, zero, turned, own_weights(), back, rows);
    const Tensor other = z - change;
    work.head(work.next).copy_(at::cat({next, other}, 1));
    const Tensor finite = other.isfinite().all(1).to(at::kCPU).contiguous();
    const auto apart = ops::allowed_norm(next - other, next, allowed_, rows);
    for (size_t r = 0; r < errors.size(); ++r) {
      errors[r] =
          finite.data_ptr<bool>()[r] ? std::max(errors[r], apart[r] / kApart) : std::nan("");
    }
    return errors;
  }

  std::vector<Tensor> taped(const Field&, const Tensor&, const std::vector<double>&,
                            const std::vector<double>&, const Tensor&) const override {
    return {};
  }
  std::vector<double> weights(double) const override { return {0.0}; }
  int stages() const override { return 1; }
  int error_order() const override { return tableau_.error_order; }
  bool lands() const override { return true; }
  int64_t fixed() const override { return fixed_; }

 private:
  std::vector<double> own_weights() const {
    auto b = tableau_.b;
    b.resize(size_t(tableau_.stages) - 1);
    return b;
  }

  Tensor stages(const Tensor& x, const std::vector<double>& t, const std::vector<double>& h,
                const Tensor& rows, int count) const {
    const Tensor k = at::empty({count, x.size(0), x.size(1)}, x.options());
    const Tensor state = at::empty_like(x);
    for (int i = 0; i < count; ++i) {
      auto a = tableau_.a[size_t(i)];
      a.resize(size_t(i));
      ops::stage_sum(state, x, k, a, h, x.size(0));
      store(k, i, f_(times_at(t, h, tableau_.c[size_t(i)], x), state, rows), x.size(0));
    }
    return k;
  }

  const Tableau& tableau_;
  Field f_;
  ops::Allowance allowed_;
  double coupling_;
  int64_t fixed_;
};

class ReversibleAdjoint : public Adjoint {
 public:
  ReversibleAdjoint(const Tableau& tableau, double coupling, Record record, const Tensor& last)
      : tableau_(tableau),
        coupling_(coupling),
        record_(std::move(record)),
        queue_(record_),
        last_(last) {}

  Tensor pull(const Tensor& grad, TapedField& f) override {
    const int64_t B = grad.size(1), n = grad.size(2);
    const Tensor order = at::tensor(queue_.samples(), at::kLong).to(grad.device());
    const Tensor ends = last_.index_select(0, order);
    const Tensor y = ends.narrow(1, 0, n).contiguous(), z = ends.narrow(1, n, n).contiguous();
    const Tensor gy = at::zeros_like(y), gz = at::zeros_like(y);
    const Tensor given = grad.contiguous();
    std::vector<size_t> open;
    for (const int64_t sample : queue_.samples())
      open.push_back(record_.places[size_t(sample)].size());
    for (int64_t step = queue_.longest() - 1; step >= -1; --step) {
      const int64_t c = step < 0 ? B : queue_.count(step);
      std::vector<ops::StagePoint> ends_here;
      for (int64_t r = 0; r < c; ++r) {
        const int64_t sample = queue_.samples()[size_t(r)];
        const auto& places = record_.places[size_t(sample)];
        for (size_t& left = open[size_t(r)]; left > 0 && places[left - 1].step == step; --left)
          ends_here.push_back({r, places[left - 1].slot * B + sample, 0.0});
      }
      ops::stage_points_transposed(gy, at::zeros({0, B, n}, y.options()), given, ends_here, {});
      if (step < 0) break;
      const auto head = [c](const Tensor& t) { return t.narrow(0, 0, c); };
      step_back(step, head(y), head(z), head(gy), head(gz), head(order), f);
    }
    Tensor result = at::empty_like(gy);
    result.index_copy_(0, order, gy + gz);
    return result;
  }

 private:
  struct Increment {
    Tensor value, passed;
  };

  /// In place: from the end of a step to its beginning.
  void step_back(int64_t n, const Tensor& y, const Tensor& z, const Tensor& gy, const Tensor& gz,
                 const Tensor& rows, TapedField& f) {
    std::vector<double> t, h;
    for (int64_t r = 0; r < y.size(0); ++r) {
      const auto sample = size_t(queue_.samples()[size_t(r)]);
      t.push_back(record_.t[sample][size_t(n)]);
      h.push_back(record_.h[sample][size_t(n)]);
    }
    const Increment back = increment(f, y, moved(t, h), negated(h), rows, -gz);
    z.add_(back.value);
    gy.add_(back.passed);
    const Increment forth = increment(f, z, t, h, rows, gy);
    y.copy_((y - (1 - coupling_) * z - forth.value) / coupling_);
    gz.add_((1 - coupling_) * gy + forth.passed);
    gy.mul_(coupling_);
  }

  /// Psi_h(t, x) and (d Psi / d x)^T u.
  Increment increment(TapedField& f, const Tensor& x, const std::vector<double>& t,
                      const std::vector<double>& h, const Tensor& rows, const Tensor& u) const {
    const int count = tableau_.stages - 1;
    const int64_t c = x.size(0);
    const Tensor k = at::empty({count, c, x.size(1)}, x.options());
    std::vector<TapedField::Evaluation> stages;
    for (int i = 0; i < count; ++i) {
      const Tensor state = at::empty_like(x);
      auto a = tableau_.a[size_t(i)];
      a.resize(size_t(i));
      ops::stage_sum(state, x, k, a, h, c);
      stages.push_back(f(times_at(t, h, tableau_.c[size_t(i)], x), state, rows));
      store(k, i, stages.back().values[0].detach(), c);
    }
    auto b = tableau_.b;
    b.resize(size_t(count));
    Increment found{at::empty_like(x), at::zeros_like(x)};
    ops::stage_sum(found.value, at::zeros_like(x), k, b, h, c);
    const Tensor cotangent = at::zeros_like(k);
    ops::stage_spread(cotangent, u.contiguous(), b, h, c);
    for (int i = count - 1; i >= 0; --i) {
      const Tensor passed = f.pull(stages[size_t(i)], {cotangent[i]});
      found.passed.add_(passed);
      auto a = tableau_.a[size_t(i)];
      a.resize(size_t(count));
      ops::stage_spread(cotangent, passed, a, h, c);
    }
    return found;
  }

  const Tableau& tableau_;
  double coupling_;
  Record record_;
  Queue queue_;
  Tensor last_;
};

}  // namespace

Field doubled(const OdeFunction& f, at::IntArrayRef shape, at::ScalarType type) {
  const Field own(f, shape, type);
  const int64_t n = own.numbers();
  return Field(
      [own, n](const Tensor& t, const Tensor& state, const Tensor& rows) {
        const Tensor slope = own(t, state.narrow(1, 0, n).contiguous(), rows);
        return at::cat({slope, slope}, 1);
      },
      {2 * n}, type);
}

std::unique_ptr<Stepper> reversible_stepper(const Tableau& tableau, const Field& f,
                                            const ops::Allowance& allowed, double coupling,
                                            int64_t fixed) {
  return std::make_unique<ReversibleStepper>(tableau, f, allowed, coupling, fixed);
}

std::unique_ptr<Adjoint> reversible_adjoint(const Tableau& tableau, double coupling, Record record,
                                            const Tensor& last) {
  return std::make_unique<ReversibleAdjoint>(tableau, coupling, std::move(record), last);
}

}  // namespace deq::ode
