// The kernels of one sample of group_step.h: everything between its state and f stays in the cache.
#pragma once

#include <cstdint>
#include <vector>

namespace deq::ops {

/// One kind of groups over the places of a sample.
template <class T>
struct GroupKind {
  const int64_t* group = nullptr;  // (P), -1: none
  const T* share = nullptr;        // (groups), 1 / places
  int64_t groups = 0;
  const T* weights = nullptr;  // in panels: forward W_k^T (w, I), backward W_k (I, w)
};

/// P places, S symbols, w features, I units. A message is what a place or a group hears: first
/// those of the P places, then of each kind those of its groups, S for each.
template <class T>
struct GroupShape {
  int64_t places = 0, symbols = 0, width = 0, inner = 0;
  const T *own = nullptr, *place = nullptr, *output = nullptr;  // in panels, as those of a kind
  std::vector<GroupKind<T>> kinds;

  int64_t messages() const {
    int64_t count = places;
    for (const GroupKind<T>& kind : kinds) count += kind.groups * symbols;
    return count;
  }
  /// Places that go through the products together.
  int64_t block() const;
  /// Numbers of scratch memory.
  int64_t scratch() const {
    return messages() * (width + inner) + 2 * block() * symbols * (width + inner);
  }
};

/// f of a sample, and what backward reads of it, where that is asked for.
template <class T>
struct GroupForward {
  const T *z = nullptr, *injected = nullptr;  // (P, S, w); (P, S, I)
  T* f = nullptr;                             // (P, S, w)
  T* hidden = nullptr;                        // (P, S, I), h
  T* scale = nullptr;                         // (P, S), 1 / rms
  T* means = nullptr;                         // (messages, w)
};
void group_forward(const GroupShape<float>& shape, const GroupForward<float>& at, float* scratch);
void group_forward(const GroupShape<double>& shape, const GroupForward<double>& at,
                   double* scratch);

/// The gradient of a sample's state, and of what stands between, where that is asked for.
template <class T>
struct GroupBackward {
  const T *df = nullptr, *f = nullptr, *hidden = nullptr, *scale = nullptr;
  T* dz = nullptr;        // (P, S, w)
  T* injected = nullptr;  // (P, S, I), of what the units' relu is taken of
  T* output = nullptr;    // (P, S, w), of what the norm is taken of
  T* messages = nullptr;  // (messages, I)
};
void group_backward(const GroupShape<float>& shape, const GroupBackward<float>& at, float* scratch);
void group_backward(const GroupShape<double>& shape, const GroupBackward<double>& at,
                    double* scratch);

}  // namespace deq::ops
