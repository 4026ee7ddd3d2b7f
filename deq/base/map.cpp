#include "deq/base/map.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <torch/csrc/autograd/autograd.h>

#include <atomic>
#include <optional>

#include "deq/base/autocast.h"
#include "deq/base/error.h"

namespace deq {
namespace {

using at::Tensor;

/// Whether memory of `y` is held by anyone but y: by what f captured, by its z, or by a buffer that
/// the next call fills again.
bool is_shared(const Tensor& y) {
  if (!y.defined() || !y.has_storage()) return false;
  if (y.use_count() > 1) return true;
  // A view keeps its base; one that nobody else keeps is part of the result.
  const bool view = y.is_view();
  if (view && y._base().use_count() > 1) return true;
  // A tape may keep a result's memory for backward, never to write to it.
  if (y.requires_grad()) return y.is_leaf();
  const bool foreign = y.storage().allocator() == nullptr;  // lent to LibTorch, a buffer perhaps
  return foreign || y.storage().use_count() > (view ? 2u : 1u);
}

/// A callable that promises nothing, watched at every call.
class Watched {
 public:
  explicit Watched(Map::Evaluate f) : f_(std::move(f)) {}

  /// `first`: z is the caller's; never to be changed, whatever was seen before.
  Tensor operator()(const Tensor& z, bool first) {
    const Habit habit = habit_;
    // Tensors of InferenceMode count no versions.
    if (first || habit != Habit::LeavesZ || z.is_inference()) return on_copy(z);
    const auto version = z._version();
    Tensor fz = f_(z);
    DEQ_CHECK(z._version() == version,
              "f changed the z that it was given in place, and did not at its first call; expected "
              "an f that leaves z as it is: z.clone() first");
    return own(std::move(fz));
  }
  Tensor operator()(const Tensor& z) { return (*this)(z, false); }

 private:
  enum class Habit { Unknown, LeavesZ, WorksInPlace };

  Tensor on_copy(const Tensor& z) {
    const Tensor copy = z.clone();
    const bool counted = !copy.is_inference();
    const auto version = counted ? copy._version() : 0;
    Tensor fz = f_(copy);
    // What writes by way of data() or a pointer counts no version. (A GPU is not waited for.)
    if (habit_ != Habit::WorksInPlace) {
      const bool changed =
          (counted && copy._version() != version) || (copy.is_cpu() && !copy.equal(z));
      habit_ = changed ? Habit::WorksInPlace : Habit::LeavesZ;
    }
    return own(std::move(fz));
  }

  static Tensor own(Tensor fz) { return is_shared(fz) ? fz.clone() : fz; }

  Map::Evaluate f_;
  std::atomic<Habit> habit_ = Habit::Unknown;
};

void check_value(const Tensor& fz, const Tensor& z) {
  DEQ_CHECK(fz.defined(), "f returned an undefined tensor; expected shape [{}]",
            fmt::join(z.sizes(), ", "));
}

/// f(z) by `call`, in the type of z where autocast may have chosen another.
template <class Call>
Tensor evaluated(const Tensor& z, const Call& call) {
  if (!autocast_enabled(z.device().type())) {
    Tensor fz = call();
    check_value(fz, z);
    return fz;
  }
  std::optional<NoCastCache> no_cache;
  if (!c10::GradMode::is_enabled()) no_cache.emplace();
  const Tensor fz = call();
  check_value(fz, z);
  return fz.is_floating_point() ? fz.to(z.scalar_type()) : fz;
}

}  // namespace

Map Map::guarded(Evaluate f) {
  if (!f) return {};
  const auto watched = std::make_shared<Watched>(std::move(f));
  return Map([watched](const Tensor& z) { return (*watched)(z); },
             [watched]() -> Series {
               return
                   [watched, first = true](const Tensor& z, const std::vector<int64_t>&) mutable {
                     return (*watched)(z, std::exchange(first, false));
                   };
             });
}

Tensor Map::operator()(const Tensor& z) const {
  DEQ_CHECK(evaluate_, "f is an empty Map; expected a callable z -> f(z)");
  return evaluated(z, [&] { return evaluate_(z); });
}

Tensor Map::differentiable(const Tensor& z) const {
  return reference_ ? evaluated(z, [&] { return reference_(z); }) : (*this)(z);
}

Map::Series Map::series() const {
  DEQ_CHECK(evaluate_, "f is an empty Map; expected a callable z -> f(z)");
  const Series own =
      series_ ? series_()
              : [f = evaluate_](const Tensor& z, const std::vector<int64_t>&) { return f(z); };
  return [own](const Tensor& z, const std::vector<int64_t>& done) {
    return evaluated(z, [&] { return own(z, done); });
  };
}

Map::Linearised Map::linearise(const Tensor& z) const {
  if (linearise_) return linearise_(z);
  const Tensor fz = (*this)(z);
  return {fz, [z, fz](const Tensor& u, const std::vector<int64_t>&) {
            const auto product = torch::autograd::grad({fz}, {z}, {u}, /*retain_graph=*/true,
                                                       /*create_graph=*/false,
                                                       /*allow_unused=*/true);
            return product[0].defined() ? product[0] : at::zeros_like(u);
          }};
}

}  // namespace deq
