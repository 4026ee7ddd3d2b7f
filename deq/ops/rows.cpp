#include "deq/ops/rows.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>

#include "deq/base/error.h"
#include "deq/ops/rows_simd.h"

namespace deq::ops {
namespace {

using at::Tensor;

bool has_kernel(const Tensor& t) {
  return t.device().is_cpu() && (t.scalar_type() == at::kFloat || t.scalar_type() == at::kDouble);
}

template <class T>
std::vector<const T*> pointers(const std::vector<Tensor>& history) {
  std::vector<const T*> out;
  for (const Tensor& h : history) out.push_back(h.data_ptr<T>());
  return out;
}

/// Rows a thread takes at least, so that small states stay on one.
int64_t grain(int64_t n, int64_t m) {
  return std::max<int64_t>(1, 32768 / std::max<int64_t>(1, n * m));
}

void check_states(const std::vector<Tensor>& history, const Tensor& like) {
  DEQ_CHECK(like.dim() == 2 && like.is_contiguous(),
            "rows: a state is [{}]{}; expected two dimensions, contiguous",
            fmt::join(like.sizes(), ", "), like.is_contiguous() ? "" : ", not contiguous");
  for (const Tensor& h : history) {
    DEQ_CHECK(
        h.sizes() == like.sizes() && h.is_contiguous() && h.scalar_type() == like.scalar_type(),
        "rows: history holds [{}]; expected contiguous [{}] of {}", fmt::join(h.sizes(), ", "),
        fmt::join(like.sizes(), ", "), c10::toString(like.scalar_type()));
  }
}

void check_flags(const char* name, const std::vector<char>& flags, int64_t rows) {
  DEQ_CHECK(int64_t(flags.size()) == rows, "rows: {} has {} flags; expected {}", name, flags.size(),
            rows);
}

/// Runs f(first, end) over the runs of rows in begin .. end - 1 that are not left out.
template <class F>
void not_left_out(const std::vector<char>& left_out, int64_t begin, int64_t end, const F& f) {
  if (left_out.empty()) return f(begin, end);
  for (int64_t r = begin; r < end;) {
    const int64_t first = r;
    while (r < end && !left_out[size_t(r)]) ++r;
    if (r > first) f(first, r);
    while (r < end && left_out[size_t(r)]) ++r;
  }
}

template <class T>
void run_dots(const std::vector<Tensor>& history, const Tensor& g,
              const std::vector<char>& left_out, Tensor& out) {
  const int64_t m = int64_t(history.size()), n = g.size(1);
  const auto from = pointers<T>(history);
  at::parallel_for(0, g.size(0), grain(n, m), [&](int64_t first, int64_t last) {
    not_left_out(left_out, first, last, [&](int64_t begin, int64_t end) {
      simd_dots(from.data(), m, g.data_ptr<T>(), n, begin, end, out.data_ptr<double>());
    });
  });
}

template <class T>
void run_mix(const Tensor& coefficients, const std::vector<Tensor>& history, const Tensor& base,
             const std::vector<char>& left_out, Tensor& out) {
  const int64_t m = int64_t(history.size()), n = out.size(1);
  const auto from = pointers<T>(history);
  const T* start = base.defined() ? base.data_ptr<T>() : nullptr;
  at::parallel_for(0, out.size(0), grain(n, m), [&](int64_t first, int64_t last) {
    not_left_out(left_out, first, last, [&](int64_t begin, int64_t end) {
      simd_mix(coefficients.data_ptr<double>(), from.data(), m, start, n, begin, end,
               out.data_ptr<T>());
    });
  });
}

template <class T>
void run_step(const Tensor& z, const Tensor& base, const Tensor& coefficients,
              const std::vector<Tensor>& history, const std::vector<char>& left_out, RowStep& out) {
  const int64_t m = int64_t(history.size()), n = z.size(1);
  const auto from = pointers<T>(history);
  at::parallel_for(0, z.size(0), grain(n, m + 3), [&](int64_t first, int64_t last) {
    not_left_out(left_out, first, last, [&](int64_t begin, int64_t end) {
      simd_step(coefficients.data_ptr<double>(), from.data(), m, z.data_ptr<T>(),
                base.data_ptr<T>(), n, begin, end, out.next.data_ptr<T>(), out.step.data_ptr<T>(),
                out.dots.data_ptr<double>());
    });
  });
}

template <class T>
void run_residual(const Tensor& z, const Tensor& fz, RowResidual& out) {
  const int64_t n = z.size(1);
  at::parallel_for(0, z.size(0), grain(n, 4), [&](int64_t begin, int64_t end) {
    simd_residual(z.data_ptr<T>(), fz.data_ptr<T>(), n, begin, end, out.g.data_ptr<T>(),
                  out.norms.data_ptr<double>());
  });
}

template <class T>
void run_distances(const Tensor& a, const Tensor& b, const std::vector<char>& left_out,
                   Tensor& out) {
  const int64_t n = a.size(1);
  at::parallel_for(0, a.size(0), grain(n, 2), [&](int64_t first, int64_t last) {
    not_left_out(left_out, first, last, [&](int64_t begin, int64_t end) {
      simd_distances(a.data_ptr<T>(), b.data_ptr<T>(), n, begin, end, out.data_ptr<double>());
    });
  });
}

Tensor doubles(TensorPool* pool, int64_t rows, int64_t columns, const Tensor& like) {
  return empty_from(pool, {rows, columns}, like.options().dtype(at::kDouble));
}

void check_coefficients(const char* name, const Tensor& coefficients, int64_t rows, size_t m) {
  DEQ_CHECK(coefficients.sizes() == at::IntArrayRef({rows, int64_t(m)}) &&
                coefficients.scalar_type() == at::kDouble,
            "{}: coefficients are {} [{}]; expected Double [{}, {}]", name,
            c10::toString(coefficients.scalar_type()), fmt::join(coefficients.sizes(), ", "), rows,
            m);
}

}  // namespace

RowResidual row_residual_reference(const Tensor& z, const Tensor& fz) {
  const Tensor g = fz - z;
  const auto norms = [](const Tensor& t) {  // of numbers of any size
    if (t.size(1) == 0) return at::zeros({t.size(0)}, t.options().dtype(at::kDouble));
    const Tensor numbers = t.to(at::kDouble), largest = numbers.abs().amax(1);
    const Tensor scale = largest.masked_fill(largest.eq(0).logical_or(largest.isinf()), 1);
    return (numbers / scale.unsqueeze(1)).square().sum(1).sqrt() * scale;
  };
  return {g, at::stack({norms(g), norms(fz)}, 1)};
}

RowResidual row_residual(const Tensor& z, const Tensor& fz, TensorPool* pool) {
  check_states({fz}, z);
  if (!has_kernel(z)) return row_residual_reference(z, fz);
  RowResidual out{empty_from(pool, z.sizes(), z.options()), doubles(pool, z.size(0), 2, z)};
  if (z.scalar_type() == at::kFloat) {
    run_residual<float>(z, fz, out);
  } else {
    run_residual<double>(z, fz, out);
  }
  return out;
}

Tensor row_distances_reference(const Tensor& a, const Tensor& b) {
  return (a.to(at::kDouble) - b.to(at::kDouble)).square().sum(1).sqrt();
}

Tensor row_distances(const Tensor& a, const Tensor& b, const std::vector<char>& left_out,
                     TensorPool* pool) {
  check_states({b}, a);
  if (!left_out.empty()) check_flags("left_out", left_out, a.size(0));
  if (!has_kernel(a)) return row_distances_reference(a, b);
  Tensor out = empty_from(pool, {a.size(0)}, a.options().dtype(at::kDouble));
  if (a.scalar_type() == at::kFloat) {
    run_distances<float>(a, b, left_out, out);
  } else {
    run_distances<double>(a, b, left_out, out);
  }
  return out;
}

Tensor row_dots_reference(const std::vector<Tensor>& history, const Tensor& g) {
  if (history.empty()) return at::empty({g.size(0), 0}, g.options().dtype(at::kDouble));
  return (at::stack(history, 1).to(at::kDouble) * g.unsqueeze(1).to(at::kDouble)).sum(2);  // (R, m)
}

Tensor row_mix_reference(const Tensor& coefficients, const std::vector<Tensor>& history,
                         const Tensor& base) {
  Tensor sum = base.defined() ? base : at::zeros_like(history.at(0));
  for (size_t i = 0; i < history.size(); ++i) {
    sum = sum + coefficients.select(1, int64_t(i)).unsqueeze(1).to(sum.scalar_type()) * history[i];
  }
  return sum;
}

Tensor row_dots(const std::vector<Tensor>& history, const Tensor& g,
                const std::vector<char>& left_out, TensorPool* pool) {
  check_states(history, g);
  if (!left_out.empty()) check_flags("left_out", left_out, g.size(0));
  if (!has_kernel(g)) return row_dots_reference(history, g);
  Tensor out = doubles(pool, g.size(0), int64_t(history.size()), g);
  if (g.scalar_type() == at::kFloat) {
    run_dots<float>(history, g, left_out, out);
  } else {
    run_dots<double>(history, g, left_out, out);
  }
  return out;
}

Tensor row_where(const std::vector<char>& chosen, const Tensor& a, const Tensor& b,
                 TensorPool* pool) {
  check_states({b}, a);
  check_flags("chosen", chosen, a.size(0));
  if (!a.device().is_cpu()) {
    const auto flags = at::from_blob(const_cast<char*>(chosen.data()), {a.size(0), 1}, at::kBool);
    return at::where(flags.to(a.device()), a, b);
  }
  const Tensor out = empty_from(pool, a.sizes(), a.options());
  const int64_t bytes = a.size(1) * int64_t(a.element_size());
  const auto *from_a = static_cast<const char*>(a.data_ptr()),
             *from_b = static_cast<const char*>(b.data_ptr());
  auto* to = static_cast<char*>(out.data_ptr());
  at::parallel_for(0, a.size(0), grain(bytes, 1), [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r)
      std::copy_n((chosen[size_t(r)] ? from_a : from_b) + r * bytes, bytes, to + r * bytes);
  });
  return out;
}

Tensor row_mix(const Tensor& coefficients, const std::vector<Tensor>& history, const Tensor& base,
               const std::vector<char>& left_out, TensorPool* pool) {
  DEQ_CHECK(base.defined() || !history.empty(),
            "row_mix: no history and no base; expected one of them");
  const Tensor& like = base.defined() ? base : history[0];
  check_states(history, like);
  check_coefficients("row_mix", coefficients, like.size(0), history.size());
  if (!left_out.empty()) check_flags("left_out", left_out, like.size(0));
  if (!has_kernel(like)) return row_mix_reference(coefficients, history, base);
  const Tensor c = coefficients.contiguous();
  Tensor out = empty_from(pool, like.sizes(), like.options());
  if (like.scalar_type() == at::kFloat) {
    run_mix<float>(c, history, base, left_out, out);
  } else {
    run_mix<double>(c, history, base, left_out, out);
  }
  return out;
}

RowStep row_step_reference(const Tensor& z, const Tensor& base, const Tensor& coefficients,
                           const std::vector<Tensor>& history) {
  const Tensor next = z + row_mix_reference(coefficients, history, base), step = next - z;
  return {next, step, row_dots_reference(history, step)};
}

RowStep row_step(const Tensor& z, const Tensor& base, const Tensor& coefficients,
                 const std::vector<Tensor>& history, const std::vector<char>& left_out,
                 TensorPool* pool) {
  check_states(history, z);
  check_states({base}, z);
  check_coefficients("row_step", coefficients, z.size(0), history.size());
  if (!left_out.empty()) check_flags("left_out", left_out, z.size(0));
  if (!has_kernel(z)) return row_step_reference(z, base, coefficients, history);
  const Tensor c = coefficients.contiguous();
  RowStep out{empty_from(pool, z.sizes(), z.options()), empty_from(pool, z.sizes(), z.options()),
              doubles(pool, z.size(0), int64_t(history.size()), z)};
  if (z.scalar_type() == at::kFloat) {
    run_step<float>(z, base, c, history, left_out, out);
  } else {
    run_step<double>(z, base, c, history, left_out, out);
  }
  return out;
}

}  // namespace deq::ops
