#pragma once

#include <string>
#include <vector>

namespace deq {

/// What a memory did along a problem.
struct MemoryPicture {
  /// One head or stack.
  struct Track {
    std::string name;
    std::vector<std::string> at;  ///< of each position: a slot's number, or an action
  };
  std::vector<std::string> symbols;  ///< of the problem, position after position
  std::vector<Track> tracks;         ///< as many positions each; empty: the model has no memory
};

/// HTML: a table, positions from left to right; the colours of a track go from its lowest slot
/// (blue) to its highest (red), or tell its actions apart. "" without a track.
std::string draw_memory(const MemoryPicture& picture);

}  // namespace deq
