#include "deq/ops/mixing.h"

#include <algorithm>
#include <cmath>

namespace deq::ops {

template <class T>
void pack_couplings(const T* C, int64_t row, const std::vector<int64_t>& which, T scale, T* out) {
  const int64_t n = int64_t(which.size());
  for (int64_t first = 0; first < n; first += kMixingBlock) {
    for (int64_t r = 0; r < kMixingBlock; ++r, ++out) {
      const bool real = first + r < n;
      const T* from = real ? C + which[size_t(first + r)] * row : nullptr;
      for (int64_t j = 0; j < n; ++j)
        out[j * kMixingBlock] = real && j != first + r ? scale * from[which[size_t(j)]] : T(0);
    }
    out += (n - 1) * kMixingBlock;
  }
}

namespace {

/// g_i, without v_i's own part.
template <class T>
void pull(const Mixing<T>& p, const T* V, const T* base, int64_t i, T* g) {
  for (int64_t c = 0; c < p.width; ++c) g[c] = base ? base[i * p.width + c] : T(0);
  for (int64_t j = 0; j < p.n; ++j) {
    for (int64_t c = 0; c < p.width; ++c) g[c] += p.coupling(i, j) * V[j * p.width + c];
  }
}

}  // namespace

template <class T>
double mixing_sweep_reference(const Mixing<T>& p, T* V, T* moved) {
  double total = 0;
  for (int64_t i = 0; i < p.n; ++i) {
    T *g = moved + i * p.width, *v = V + i * p.width;
    pull(p, V, p.base, i, g);
    double squared = 0;
    for (int64_t c = 0; c < p.width; ++c) squared += double(g[c]) * double(g[c]);
    const T norm = T(std::sqrt(squared));
    const bool moves = norm > p.floor[i];
    for (int64_t c = 0; c < p.width; ++c) {
      const T next = moves ? -g[c] / norm : v[c];
      g[c] = next - v[c];
      v[c] = next;
      total += double(g[c]) * double(g[c]);
    }
  }
  return total;
}

template <class T>
void mixing_product_reference(const Mixing<T>& p, const T* V, const T* base, T* out) {
  for (int64_t i = 0; i < p.n; ++i) pull(p, V, base, i, out + i * p.width);
}

template void pack_couplings(const float*, int64_t, const std::vector<int64_t>&, float, float*);
template void pack_couplings(const double*, int64_t, const std::vector<int64_t>&, double, double*);
template double mixing_sweep_reference(const Mixing<float>&, float*, float*);
template double mixing_sweep_reference(const Mixing<double>&, double*, double*);
template void mixing_product_reference(const Mixing<float>&, const float*, const float*, float*);
template void mixing_product_reference(const Mixing<double>&, const double*, const double*,
                                       double*);

}  // namespace deq::ops
