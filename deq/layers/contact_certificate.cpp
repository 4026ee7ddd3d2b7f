#include "deq/layers/contact_certificate.h"

#include <algorithm>

#include "deq/layers/dense_vector.h"
#include "deq/layers/exact_program.h"
#include "deq/layers/scaled_program.h"

namespace deq {

bool no_velocity(const ContactShape& shape, const ContactData& data, double* certificate) {
  const auto [n, m, p] = shape;
  std::vector<double> Q(size_t(n * n)), q(static_cast<size_t>(n)), G(size_t(m * n)),
      b(static_cast<size_t>(p)), h(static_cast<size_t>(m));
  for (int64_t i = 0; i < n; ++i) {
    for (int64_t j = 0; j < n; ++j) {
      Q[size_t(i * n + j)] = (data.mass[i * n + j] + data.mass[j * n + i]) / 2;
      q[size_t(i)] -= Q[size_t(i * n + j)] * data.velocity[j];
    }
  }
  for (int64_t j = 0; j < p; ++j) b[size_t(j)] = -data.joint_bias[j];
  for (int64_t i = 0; i < m; ++i) {
    const double* const row = data.normal + i * n;
    for (int64_t j = 0; j < n; ++j) G[size_t(i * n + j)] = -row[j];
    if (largest(row, n) > 0)  // else it is no contact
      h[size_t(i)] = data.restitution[i] * dot(row, data.velocity, n) + data.bias[i];
  }
  const ops::QuadraticShape own{n, p, m};
  const ScaledMatrices matrices(own, Q.data(), data.joint, G.data());
  const ScaledProgram program(matrices, q.data(), b.data(), h.data());
  if (!program.finite()) return false;
  const ExactAnswer answer = solve_exactly(program, {}, Degenerate::LeastNorm);
  if (answer.reason != Reason::Infeasible) return false;
  std::copy_n(answer.certificate.begin(), p + m, certificate);
  return true;
}

}  // namespace deq
