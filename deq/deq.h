// The library in one header: the equilibrium layer, every solver and every gradient mode, and the
// other layers that are defined by a condition. For programs; deq's own files include what they
// need.
#pragma once

#include "deq/cells/implicit.h"
#include "deq/cells/monotone.h"
#include "deq/cells/monotone_convolution.h"
#include "deq/cells/perron_frobenius.h"
#include "deq/cells/project_rows.h"
#include "deq/gradients/implicit.h"
#include "deq/gradients/jacobian.h"
#include "deq/gradients/phantom.h"
#include "deq/gradients/unrolled.h"
#include "deq/layers/clauses.h"
#include "deq/layers/compose.h"
#include "deq/layers/equilibrium.h"
#include "deq/layers/maxsat.h"
#include "deq/layers/ode.h"
#include "deq/layers/quadratic_program.h"
#include "deq/solvers/anderson.h"
#include "deq/solvers/broyden.h"
#include "deq/solvers/douglas_rachford.h"
#include "deq/solvers/forward_backward.h"
#include "deq/solvers/limits.h"
#include "deq/solvers/peaceman_rachford.h"
#include "deq/solvers/picard.h"
