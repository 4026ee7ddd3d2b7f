#include "deq/tasks/tasks.h"

#include "deq/tasks/bits.h"
#include "deq/tasks/bytes.h"
#include "deq/tasks/characters.h"
#include "deq/tasks/copy_memory.h"
#include "deq/tasks/images.h"
#include "deq/tasks/listops.h"
#include "deq/tasks/masked.h"
#include "deq/tasks/mazes.h"
#include "deq/tasks/pairs.h"
#include "deq/tasks/parity.h"
#include "deq/tasks/prefix_sums.h"
#include "deq/tasks/strings.h"
#include "deq/tasks/sudoku.h"
#include "deq/tasks/time_series.h"
#include "deq/tasks/word_problem.h"
#include "deq/tasks/words.h"

namespace deq {

// The list.
const std::vector<Task>& TaskData::known() {
  static const std::vector<Task> list{Words{},      Bytes{},  Characters{},  CopyMemory{},
                                      PrefixSums{}, Parity{}, WordProblem{}, Mazes{},
                                      Sudoku{},     Pairs{},  Strings{},     Bits{},
                                      ListOps{},    Images{}, Masked{},      TimeSeries{}};
  return list;
}

}  // namespace deq
