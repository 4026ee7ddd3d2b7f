#include "deq/data/tasks.h"

#include "deq/data/bytes.h"
#include "deq/data/characters.h"
#include "deq/data/copy_memory.h"
#include "deq/data/words.h"

namespace deq {

// The list.
const std::vector<Task>& TaskData::known() {
  static const std::vector<Task> list{Words{}, Bytes{}, Characters{}, CopyMemory{}};
  return list;
}

}  // namespace deq
