#include "deq/ops/relative_attention_cpu.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <cmath>
#include <vector>

#include "deq/ops/attention_simd.h"
#include "deq/ops/blas.h"

namespace deq::ops {
namespace {

using at::Tensor;

/// A (B, N, D) tensor seen one head of one sample at a time: (N, d) with a row stride.
template <class T>
struct Heads {
  T* data = nullptr;
  int64_t batch_stride = 0, row_stride = 0, width = 0;

  Heads() = default;
  Heads(const Tensor& t, int64_t width) : width(width) {
    if (!t.defined()) return;
    data = t.data_ptr<T>();
    batch_stride = t.dim() == 3 ? t.stride(0) : 0;
    row_stride = t.stride(t.dim() - 2);
  }
  T* at(int64_t b, int64_t h) const { return data ? data + b * batch_stride + h * width : nullptr; }
};

struct Sizes {
  int64_t B, T, D, H, d, M, K, R;

  Sizes(const AttentionInputs& in, const AttentionView& view)
      : B(in.q.size(0)),
        T(in.q.size(1)),
        D(in.q.size(2)),
        H(view.heads),
        d(D / H),
        M(in.past_k.defined() ? in.past_k.size(1) : 0),
        K(M + T),
        R(in.r.size(0)) {}
  double scale() const { return 1 / std::sqrt(double(d)); }
};

/// (q + bias) * scale for one head, (T, d) contiguous.
template <class T>
void biased(const T* q, int64_t stride, const T* bias, T scale, int64_t rows, int64_t d, T* out) {
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t c = 0; c < d; ++c) out[i * d + c] = (q[i * stride + c] + bias[c]) * scale;
  }
}

template <class T>
struct Views {
  Heads<T> q, k, v, past_k, past_v, r, y;
  const T *a, *b, *mask;

  Views(const AttentionInputs& in, const Tensor& y, int64_t d)
      : q(in.q, d),
        k(in.k, d),
        v(in.v, d),
        past_k(in.past_k, d),
        past_v(in.past_v, d),
        r(in.r, d),
        y(y, d),
        a(in.a.data_ptr<T>()),
        b(in.b.data_ptr<T>()),
        mask(in.mask.defined() ? in.mask.data_ptr<T>() : nullptr) {}
};

template <class T>
SoftmaxBlock<T> block_of(const Sizes& s, const AttentionView& view, T* scores, const T* position,
                         const T* mask, T* dropped) {
  return {s.T, s.M, s.K, s.R, view.causal, view.window, scores, position, mask, dropped};
}

template <class T>
void forward(const AttentionInputs& in, const AttentionView& view, Tensor& y,
             Tensor* probabilities) {
  const Sizes s(in, view);
  const Views<T> at(in, y, s.d);
  T* kept = probabilities ? probabilities->data_ptr<T>() : nullptr;
  at::parallel_for(0, s.B * s.H, 1, [&](int64_t begin, int64_t end) {
    std::vector<T> query(size_t(s.T * s.d)), position(size_t(s.T * s.R)),
        own(size_t(kept ? 0 : s.T * s.K)), dropped(size_t(at.mask ? s.T * s.K : 0));
    for (int64_t n = begin; n < end; ++n) {
      const int64_t b = n / s.H, h = n % s.H;
      T* scores = kept ? kept + n * s.T * s.K : own.data();
      biased(at.q.at(b, h), at.q.row_stride, at.b + h * s.d, T(s.scale()), s.T, s.d, query.data());
      gemm(false, true, s.T, s.R, s.d, T(1), query.data(), s.d, at.r.at(0, h), at.r.row_stride,
           T(0), position.data(), s.R);
      biased(at.q.at(b, h), at.q.row_stride, at.a + h * s.d, T(s.scale()), s.T, s.d, query.data());
      if (s.M > 0) {
        gemm(false, true, s.T, s.M, s.d, T(1), query.data(), s.d, at.past_k.at(b, h),
             at.past_k.row_stride, T(0), scores, s.K);
      }
      gemm(false, true, s.T, s.T, s.d, T(1), query.data(), s.d, at.k.at(b, h), at.k.row_stride,
           T(0), scores + s.M, s.K);
      const T* mask = at.mask ? at.mask + n * s.T * s.K : nullptr;
      softmax_forward(block_of(s, view, scores, position.data(), mask, dropped.data()));
      const T* weights = mask ? dropped.data() : scores;
      if (s.M > 0) {
        gemm(false, false, s.T, s.d, s.M, T(1), weights, s.K, at.past_v.at(b, h),
             at.past_v.row_stride, T(0), at.y.at(b, h), at.y.row_stride);
      }
      gemm(false, false, s.T, s.d, s.T, T(1), weights + s.M, s.K, at.v.at(b, h), at.v.row_stride,
           T(s.M > 0 ? 1 : 0), at.y.at(b, h), at.y.row_stride);
    }
  });
}

/// Where backward writes: (B, ., D) for states; r, a and b per sample, summed afterwards in a fixed
/// order.
struct Gradients {
  Tensor q, k, v, past_k, past_v, r, a, b;
};

template <class T>
class BackwardBlock {
 public:
  BackwardBlock(const Sizes& s, const AttentionView& view, const Views<T>& at,
                const T* probabilities, const Gradients& out, bool rest)
      : s_(s),
        view_(view),
        at_(at),
        probabilities_(probabilities),
        rest_(rest),
        dq_(out.q, s.d),
        dk_(out.k, s.d),
        dv_(out.v, s.d),
        dpast_k_(out.past_k, s.d),
        dpast_v_(out.past_v, s.d),
        dr_(out.r, s.d),
        da_(rest ? out.a.data_ptr<T>() : nullptr),
        db_(rest ? out.b.data_ptr<T>() : nullptr),
        gradient_(size_t(s.T * s.K)),
        shifted_(size_t(s.T * s.R)),
        query_(size_t(s.T * s.d)),
        dropped_(size_t(at.mask ? s.T * s.K : 0)) {}

  void run(int64_t n) {
    const int64_t b = n / s_.H, h = n % s_.H;
    const T* p = probabilities_ + n * s_.T * s_.K;
    const T* mask = at_.mask ? at_.mask + n * s_.T * s_.K : nullptr;
    const T* dy = at_.y.at(b, h);
    const int64_t dy_stride = at_.y.row_stride;
    const T* weights = p;
    if (mask) {
      for (int64_t i = 0; i < s_.T * s_.K; ++i) dropped_[size_t(i)] = p[i] * mask[i];
      weights = dropped_.data();
    }
    T* g = gradient_.data();
    // Values: dv = weights^T dy; and the gradient of the weights, dy v^T.
    gemm(true, false, s_.T, s_.d, s_.T, T(1), weights + s_.M, s_.K, dy, dy_stride, T(0),
         dv_.at(b, h), dv_.row_stride);
    gemm(false, true, s_.T, s_.T, s_.d, T(1), dy, dy_stride, at_.v.at(b, h), at_.v.row_stride, T(0),
         g + s_.M, s_.K);
    if (s_.M > 0) {
      gemm(false, true, s_.T, s_.M, s_.d, T(1), dy, dy_stride, at_.past_v.at(b, h),
           at_.past_v.row_stride, T(0), g, s_.K);
      if (rest_) {
        gemm(true, false, s_.M, s_.d, s_.T, T(1), weights, s_.K, dy, dy_stride, T(0),
             dpast_v_.at(b, h), dpast_v_.row_stride);
      }
    }
    softmax_backward(block_of(s_, view_, const_cast<T*>(p), static_cast<const T*>(nullptr), mask,
                              static_cast<T*>(nullptr)),
                     g, shifted_.data());
    scores(b, h);
  }

 private:
  /// From the gradients of the scores to those of queries, keys, positions and biases.
  void scores(int64_t b, int64_t h) {
    const T scale = T(s_.scale());
    const T* g = gradient_.data();
    T* dq = dq_.at(b, h);
    const int64_t stride = dq_.row_stride;
    gemm(false, false, s_.T, s_.d, s_.T, scale, g + s_.M, s_.K, at_.k.at(b, h), at_.k.row_stride,
         T(0), dq, stride);
    if (s_.M > 0) {
      gemm(false, false, s_.T, s_.d, s_.M, scale, g, s_.K, at_.past_k.at(b, h),
           at_.past_k.row_stride, T(1), dq, stride);
    }
    if (rest_) column_sums(dq, stride, da_ + b * s_.D + h * s_.d, nullptr);
    gemm(false, false, s_.T, s_.d, s_.R, scale, shifted_.data(), s_.R, at_.r.at(0, h),
         at_.r.row_stride, T(1), dq, stride);
    if (rest_) column_sums(dq, stride, db_ + b * s_.D + h * s_.d, da_ + b * s_.D + h * s_.d);

    biased(at_.q.at(b, h), at_.q.row_stride, at_.a + h * s_.d, scale, s_.T, s_.d, query_.data());
    gemm(true, false, s_.T, s_.d, s_.T, T(1), g + s_.M, s_.K, query_.data(), s_.d, T(0),
         dk_.at(b, h), dk_.row_stride);
    if (!rest_) return;
    if (s_.M > 0) {
      gemm(true, false, s_.M, s_.d, s_.T, T(1), g, s_.K, query_.data(), s_.d, T(0),
           dpast_k_.at(b, h), dpast_k_.row_stride);
    }
    biased(at_.q.at(b, h), at_.q.row_stride, at_.b + h * s_.d, scale, s_.T, s_.d, query_.data());
    gemm(true, false, s_.R, s_.d, s_.T, T(1), shifted_.data(), s_.R, query_.data(), s_.d, T(0),
         dr_.at(b, h), dr_.row_stride);
  }

  /// out = column sums of x (T, d), less `minus` where given.
  void column_sums(const T* x, int64_t stride, T* out, const T* minus) const {
    for (int64_t c = 0; c < s_.d; ++c) {
      double sum = minus ? -double(minus[c]) : 0.0;
      for (int64_t i = 0; i < s_.T; ++i) sum += double(x[i * stride + c]);
      out[c] = T(sum);
    }
  }

  const Sizes& s_;
  const AttentionView& view_;
  const Views<T>& at_;
  const T* probabilities_;
  bool rest_;
  Heads<T> dq_, dk_, dv_, dpast_k_, dpast_v_, dr_;
  T *da_, *db_;
  std::vector<T> gradient_, shifted_, query_, dropped_;
};

template <class T>
void backward(const AttentionInputs& in, const AttentionView& view, const Tensor& probabilities,
              const Tensor& dy, const Gradients& out, bool rest) {
  const Sizes s(in, view);
  const Views<T> at(in, dy, s.d);
  at::parallel_for(0, s.B * s.H, 1, [&](int64_t begin, int64_t end) {
    BackwardBlock<T> block(s, view, at, probabilities.data_ptr<T>(), out, rest);
    for (int64_t n = begin; n < end; ++n) block.run(n);
  });
}

}  // namespace

Tensor with_rows(const Tensor& t) {
  const bool fits = t.stride(-1) == 1 && t.stride(-2) >= t.size(-1);
  return fits ? t : t.clone(at::MemoryFormat::Contiguous);
}

bool attention_on_cpu(const AttentionInputs& in) {
  const bool known = in.q.scalar_type() == at::kFloat || in.q.scalar_type() == at::kDouble;
  return known && in.q.device().is_cpu() && in.q.numel() > 0 && has_blas();
}

Tensor attention_forward_cpu(const AttentionInputs& in, const AttentionView& view,
                             Tensor* probabilities) {
  const Sizes s(in, view);
  Tensor y = at::empty({s.B, s.T, s.D}, in.q.options().requires_grad(false));
  if (probabilities) *probabilities = at::empty({s.B, s.H, s.T, s.K}, y.options());
  if (in.q.scalar_type() == at::kFloat) {
    forward<float>(in, view, y, probabilities);
  } else {
    forward<double>(in, view, y, probabilities);
  }
  return y;
}

std::vector<Tensor> attention_backward_cpu(const AttentionInputs& in, const AttentionView& view,
                                           const Tensor& probabilities, const Tensor& dy,
                                           const AttentionWants& wants) {
  const Sizes s(in, view);
  const auto options = dy.options();
  Gradients out;
  // q, k and v are slices of one projection: their gradients are too, so that putting them together
  // is free.
  const Tensor qkv = at::empty({s.B, s.T, 3 * s.D}, options);
  out.q = qkv.narrow(2, 0, s.D);
  out.k = qkv.narrow(2, s.D, s.D);
  out.v = qkv.narrow(2, 2 * s.D, s.D);
  if (wants.rest) {
    if (s.M > 0) {
      out.past_k = at::empty({s.B, s.M, s.D}, options);
      out.past_v = at::empty({s.B, s.M, s.D}, options);
    }
    out.r = at::empty({s.B, s.R, s.D}, options);
    out.a = at::empty({s.B, s.D}, options);
    out.b = at::empty({s.B, s.D}, options);
  }
  const Tensor rows = with_rows(dy);
  if (dy.scalar_type() == at::kFloat) {
    backward<float>(in, view, probabilities, rows, out, wants.rest);
  } else {
    backward<double>(in, view, probabilities, rows, out, wants.rest);
  }
  if (!wants.rest) return {out.q, out.k, out.v, {}, {}, {}, {}, {}, {}};
  return {out.q,        out.k,        out.v,        out.past_k, out.past_v,
          out.r.sum(0), out.a.sum(0), out.b.sum(0), {}};
}

}  // namespace deq::ops
