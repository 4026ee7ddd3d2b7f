#include "deq/cells/cells.h"

#include "deq/cells/conditions.h"
#include "deq/cells/convolution.h"
#include "deq/cells/energy.h"
#include "deq/cells/groups.h"
#include "deq/cells/implicit.h"
#include "deq/cells/monotone.h"
#include "deq/cells/monotone_convolution.h"
#include "deq/cells/ntm.h"
#include "deq/cells/recurrent.h"
#include "deq/cells/shift.h"
#include "deq/cells/stack_rnn.h"
#include "deq/cells/tcn.h"
#include "deq/cells/transformer.h"
#include "deq/cells/trellisnet.h"

namespace deq {

// The list.
const std::vector<CellOptions>& CellMaker::known() {
  static const std::vector<CellOptions> list{Transformer{},
                                             TrellisNet{},
                                             Lstm{},
                                             Gru{},
                                             Tcn{},
                                             StackRnn{},
                                             Ntm{},
                                             Shift{},
                                             Convolution{},
                                             Groups{},
                                             Monotone{},
                                             MonotoneConvolution{},
                                             WellPosed{},
                                             Energy{},
                                             LearnedClauses{},
                                             ChainedClauses{},
                                             LearnedProgram{}};
  return list;
}

}  // namespace deq
