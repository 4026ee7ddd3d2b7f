// The library in one header: the equilibrium layer, every solver and every gradient mode. For
// programs; deq's own files include what they need.
#pragma once

#include "deq/gradients/implicit.h"
#include "deq/gradients/jacobian.h"
#include "deq/gradients/phantom.h"
#include "deq/gradients/unrolled.h"
#include "deq/layers/equilibrium.h"
#include "deq/solvers/anderson.h"
#include "deq/solvers/broyden.h"
#include "deq/solvers/limits.h"
#include "deq/solvers/picard.h"
