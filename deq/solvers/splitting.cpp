#include "deq/solvers/splitting.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <optional>

#include "deq/base/error.h"
#include "deq/ops/rows.h"
#include "deq/solvers/anderson.h"

namespace deq {

using at::Tensor;

namespace {

bool some(const std::vector<char>& rows) {
  return std::find(rows.begin(), rows.end(), 1) != rows.end();
}

/// 1 / sqrt(m L), the best for a symmetric W with a spectrum from m to L; but few of its directions
/// are as slow as a small m, and with L / 16 in its place all random W that were tried take within
/// a tenth of the fewest steps. To the next of four steps in an octave: it must not depend on the
/// last bits of an estimate.
double chosen_alpha(const Map::Resolvent& of) {
  const double L = std::max(of.norm, of.margin);
  const double best = 1 / std::sqrt(std::max(of.margin, L / 16) * L);
  return std::exp2(std::round(4 * std::log2(best)) / 4);
}

/// w, and what a step adds to it.
struct Stage {
  Tensor w, g;
  Tensor z, fz;  // the state that is judged; fz undefined where it is not known
};

class Splitting {
 public:
  Splitting(Map::Resolvent of, const SplittingOptions& options, double relaxation,
            const Layout& layout)
      : of_(std::move(of)),
        alpha_(options.alpha > 0 ? options.alpha : chosen_alpha(of_)),
        relaxation_(relaxation),
        linear_(of_.linear(alpha_)) {
    if (options.memory > 0)
      mix_ = Anderson{.memory = options.memory, .scope = options.scope}.start(layout);
  }

  Proposal propose(const Iterate& at) {
    if (!now_.w.defined()) {
      now_ = staged(entered(at.z));
    } else if (some(at.anew)) {
      now_ = staged(ops::row_where(at.anew, entered(at.z), now_.w));
    }
    const Tensor image = now_.w + now_.g;
    Tensor w = image;
    if (mix_)
      w = mix_({now_.w, image, now_.g, at.resting, at.anew, at.active, at.evaluate, at.pool}).z;
    const DoneRows::Now done = done_.see(at);
    if (!done.all_open) w = ops::row_where(done.open, w, now_.w, &at.pool);
    now_ = staged(w);
    Tensor fz = done.sure ? now_.fz : Tensor();
    if (fz.defined() && !done.all_open) fz = ops::row_where(done.open, fz, at.fz, &at.pool);
    return {now_.z, fz};
  }

 private:
  /// w of a state: of z itself as far as s is the identity there; of y, exactly.
  Tensor entered(const Tensor& z) const {
    if (!of_.outer) return z;
    return alpha_ == 1 ? z : (1 - alpha_) * of_.proximal(z, 1) + alpha_ * z;
  }

  Stage staged(const Tensor& w) const {
    const Tensor z = of_.proximal(w, alpha_);
    const Tensor turned = at::sub(z, w).add_(z);  // 2 z - w
    const Tensor v = linear_(turned);
    const Tensor y = at::sub(v, turned).div_(alpha_).add_(v);  // W v + b
    Stage found;
    found.w = w;
    found.g = at::sub(v, z).mul_(2 * relaxation_);
    found.z = of_.outer ? y : v;
    if (!of_.outer) found.fz = of_.proximal(y, 1);
    return found;
  }

  Map::Resolvent of_;
  double alpha_, relaxation_;
  std::function<Tensor(const Tensor&)> linear_;
  Propose mix_;
  DoneRows done_;
  Stage now_;
};

}  // namespace

DoneRows::Now DoneRows::see(const Iterate& at) {
  Now now;
  const Tensor active = at.active().to(at::kCPU);
  const auto rows = size_t(active.size(0));
  const bool* flags = active.data_ptr<bool>();
  now.open.assign(flags, flags + rows);
  now.all_open = std::all_of(flags, flags + rows, [](bool open) { return open; });
  if (open_.empty()) open_.assign(rows, 1);
  std::vector<char> left_out(rows);  // all but the rows that were open until now
  for (size_t r = 0; r < rows; ++r) left_out[r] = now.open[r] || !open_[r];
  if (std::find(left_out.begin(), left_out.end(), 0) != left_out.end()) {
    // What was given up has a residual that is zero, being none, or immense.
    const Tensor squares = ops::row_dots({at.g}, at.g, left_out, &at.pool).to(at::kCPU);
    const double immense = 1e10 * double(at.g.size(1));
    for (size_t r = 0; r < rows; ++r) {
      const double square = squares.data_ptr<double>()[r];
      if (!left_out[r] && !(square > 0 && square < immense)) now.sure = false;
    }
  }
  open_ = now.open;
  return now;
}

Map::Resolvent resolvent_of(const char* name, const Map& f) {
  DEQ_CHECK(
      f.resolvent(),
      "solver {}: this f has no resolvent; expected that of a cell of the form s(W z + b), as "
      "monotone and monotone-conv, or another solver",
      name);
  Map::Resolvent of = f.resolvent()();
  DEQ_CHECK(of.margin > 0 && std::isfinite(of.norm),
            "solver {}: margin = {}, norm = {}; expected an I - W that is strongly monotone", name,
            of.margin, of.norm);
  return of;
}

Propose start_splitting(const char* name, const SplittingOptions& options, double relaxation,
                        const Map& f, const Layout& layout) {
  const auto method =
      std::make_shared<Splitting>(resolvent_of(name, f), options, relaxation, layout);
  return [method](const Iterate& at) { return method->propose(at); };
}

}  // namespace deq
