#include "deq/measure/memory_tracks.h"

#include <ATen/ATen.h>

namespace deq {

std::vector<MemoryTrack> memory_tracks(Model& model, const at::Tensor& problem) {
  DEQ_CHECK(!model.is_training(), "memory: the model is in training mode; expected evaluation's");
  std::vector<std::shared_ptr<MemoryCell>> cells;
  for (const auto& part : model.children()) {
    if (auto cell = std::dynamic_pointer_cast<MemoryCell>(part)) cells.push_back(std::move(cell));
  }
  std::vector<MemoryTrack> tracks;
  if (cells.empty()) return tracks;
  c10::NoGradGuard no_tape;
  at::Tensor z = model.read(problem.unsqueeze(0));
  const std::vector<Bound> levels = model.bind(problem.unsqueeze(0), {});
  for (size_t level = 0; level < cells.size(); ++level) {
    for (MemoryTrack& track : cells[level]->look_at(z)) {
      if (cells.size() > 1) track.name = fmt::format("level {} {}", level + 1, track.name);
      tracks.push_back(std::move(track));
    }
    z = levels[level](z);
  }
  return tracks;
}

}  // namespace deq
