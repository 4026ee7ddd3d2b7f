#include "deq/distributed/process_group.h"

#include <ATen/ATen.h>

#include <cstring>

#include "deq/base/error.h"

namespace deq {

using at::Tensor;

namespace {

class Alone final : public ProcessGroup {
 public:
  int64_t rank() const override { return 0; }
  int64_t size() const override { return 1; }
  int64_t local_rank() const override { return 0; }
  Tensor gather(const Tensor& own) override { return own.unsqueeze(0); }
  Tensor exchange(const Tensor& parts) override { return parts; }
  void broadcast(Tensor&) override {}
  std::shared_ptr<ProcessGroup> another() override { return alone(); }
  void doing(const std::string&) override {}
};

Tensor bytes_of(const std::string& text) {
  const Tensor bytes = at::empty({int64_t(text.size())}, at::kByte);
  if (!text.empty()) std::memcpy(bytes.data_ptr(), text.data(), text.size());
  return bytes;
}

std::string text_of(const Tensor& bytes, int64_t length) {
  return {static_cast<const char*>(bytes.data_ptr()), size_t(length)};
}

int64_t from_first(ProcessGroup& group, int64_t number) {
  Tensor held = at::full({1}, number, at::kLong);
  group.broadcast(held);
  return held.item<int64_t>();
}

/// "name type 3 4" for each tensor, so that others can make room for them.
struct Header {
  std::string name;
  at::ScalarType type;
  std::vector<int64_t> sizes;
};

std::string written(const std::map<std::string, Tensor>& tensors) {
  std::string text;
  for (const auto& [name, tensor] : tensors)
    text +=
        fmt::format("{}\n{} {}\n", name, int(tensor.scalar_type()), fmt::join(tensor.sizes(), " "));
  return text;
}

std::vector<Header> read_headers(const std::string& text) {
  std::vector<Header> headers;
  for (size_t begin = 0; begin < text.size();) {
    const size_t name_end = text.find('\n', begin), end = text.find('\n', name_end + 1);
    Header header{text.substr(begin, name_end - begin), at::ScalarType::Undefined, {}};
    const std::string numbers = text.substr(name_end + 1, end - name_end - 1);
    size_t at = 0;
    const auto number = [&] {
      size_t used = 0;
      const int64_t value = std::stoll(numbers.substr(at), &used);
      at += used;
      while (at < numbers.size() && numbers[at] == ' ') ++at;
      return value;
    };
    header.type = at::ScalarType(number());
    while (at < numbers.size()) header.sizes.push_back(number());
    headers.push_back(std::move(header));
    begin = end + 1;
  }
  return headers;
}

}  // namespace

std::shared_ptr<ProcessGroup> alone() { return std::make_shared<Alone>(); }

std::vector<std::string> gather_texts(ProcessGroup& group, const std::string& own) {
  const Tensor lengths = group.gather(at::full({1}, int64_t(own.size()), at::kLong));
  const int64_t longest = lengths.max().item<int64_t>();
  const Tensor padded = at::zeros({longest}, at::kByte);
  padded.narrow(0, 0, int64_t(own.size())).copy_(bytes_of(own));
  const Tensor all = longest > 0 ? group.gather(padded) : at::empty({group.size(), 0}, at::kByte);
  std::vector<std::string> texts;
  for (int64_t r = 0; r < group.size(); ++r)
    texts.push_back(text_of(all[r], lengths[r].item<int64_t>()));
  return texts;
}

std::string broadcast_text(ProcessGroup& group, const std::string& text) {
  const int64_t length = from_first(group, int64_t(text.size()));
  if (length == 0) return "";
  Tensor bytes = group.first() ? bytes_of(text) : at::empty({length}, at::kByte);
  group.broadcast(bytes);
  return text_of(bytes, length);
}

std::map<std::string, Tensor> broadcast_tensors(ProcessGroup& group,
                                                const std::map<std::string, Tensor>& tensors) {
  if (!group.several()) return tensors;
  std::map<std::string, Tensor> received;
  for (const Header& header : read_headers(broadcast_text(group, written(tensors)))) {
    Tensor held = group.first() ? tensors.at(header.name).detach().cpu().contiguous()
                                : at::empty(header.sizes, header.type);
    if (held.numel() > 0) group.broadcast(held);
    received[header.name] = held;
  }
  return received;
}

void together(ProcessGroup& group, const std::function<void()>& part) {
  if (!group.several()) return part();
  std::exception_ptr own;
  std::string said;
  try {
    part();
  } catch (const std::exception& error) {
    own = std::current_exception();
    said = error.what();
    said = said.substr(0, said.find('\n'));
    if (said.empty()) said = "an error without a word";
  }
  const std::vector<std::string> all = gather_texts(group, said);
  if (own) std::rethrow_exception(own);
  for (size_t r = 0; r < all.size(); ++r) DEQ_CHECK(all[r].empty(), "rank {}: {}", r, all[r]);
}

void check_alike(ProcessGroup& group, const std::map<std::string, std::string>& values) {
  if (!group.several()) return;
  std::string own;
  for (const auto& [name, value] : values) own += name + " = " + value + "\n";
  const std::vector<std::string> all = gather_texts(group, own);
  const auto line_at = [](const std::string& text, size_t begin) {
    return begin >= text.size() ? std::string("nothing more")
                                : text.substr(begin, text.find('\n', begin) - begin);
  };
  for (size_t r = 1; r < all.size(); ++r) {
    if (all[r] == all[0]) continue;
    size_t begin = 0;  // of the first line that differs
    while (line_at(all[r], begin) == line_at(all[0], begin)) begin = all[0].find('\n', begin) + 1;
    throw Error(fmt::format("rank {} has {}, rank 0 {}; expected the same of all processes", r,
                            line_at(all[r], begin), line_at(all[0], begin)));
  }
}

}  // namespace deq
