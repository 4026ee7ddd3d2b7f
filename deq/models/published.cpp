#include "deq/models/published.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include <nlohmann/json.hpp>
#include <set>

#include "deq/base/printable.h"
#include "deq/cells/transformer.h"
#include "deq/cells/trellisnet.h"

namespace deq {
namespace {

using Json = nlohmann::json;

constexpr const char* kPublishedKinds = "deq-transformer, deq-trellisnet";

/// The cells' linear maps: published module, ours.
const std::pair<const char*, const char*> kLinears[] = {
    {"func.dec_attn.qkv_net", "cell.qkv"},     {"func.dec_attn.r_net", "cell.positions"},
    {"func.dec_attn.o_net", "cell.output"},    {"func.pos_ff.ff1_net", "cell.inner"},
    {"func.pos_ff.ff2_net", "cell.outer"},     {"inject_conv", "cell.inject"},
    {"trellisnet.inject_conv", "cell.inject"}, {"trellisnet.func.full_conv", "cell.conv"},
};
const std::pair<const char*, const char*> kLeaves[] = {
    {".weight", ".weight"}, {".bias", ".bias"}, {".weight_g", ".g"}, {".weight_v", ".v"}};

/// The published modules hold copies of f, which their checkpoints repeat; and they may be wrapped
/// for several GPUs.
std::string without_wrapper(std::string name) {
  if (name.rfind("module.", 0) == 0) name.erase(0, 7);
  return name;
}
bool is_copy(const std::string& name) {
  for (const char* part : {"deq.func.", "deqback.func.", "func_copy."}) {
    if (name.rfind(part, 0) == 0 || name.find(std::string(".") + part) != std::string::npos)
      return true;
  }
  return false;
}

std::string shown(const Json& value) {
  return printable(value.dump(-1, ' ', false, Json::error_handler_t::replace));
}

int64_t whole(const Json& value, const char* key) {
  const bool fits = value.is_number_integer() &&
                    (!value.is_number_unsigned() || value.get<uint64_t>() <= uint64_t(INT64_MAX));
  DEQ_CHECK(fits, "config: {} = {}; expected a whole number", key, shown(value));
  return value.get<int64_t>();
}
int64_t number(const Json& config, const char* key) { return whole(config.at(key), key); }

ModelOptions published_transformer(const Json& config) {
  Transformer cell;
  cell.width = number(config, "d_model");
  cell.heads = number(config, "n_head");
  cell.inner = number(config, "d_inner");
  cell.norm = config.at("pre_norm").get<bool>() ? NormPlace::PrePublished : NormPlace::Post;
  const int64_t window = number(config, "local_size");
  cell.window = window > 0 ? window : 1000;
  cell.weight_norm = config.at("weight_norm").get<bool>();
  validate(cell, "config");
  const int64_t head_width = number(config, "d_head");
  DEQ_CHECK(head_width >= 1 && head_width <= cell.width && cell.heads * head_width == cell.width,
            "config: n_head = {}, d_head = {}; expected a product of d_model = {}, which the "
            "injection needs",
            cell.heads, head_width, cell.width);
  ModelOptions options;
  options.cell = cell;
  options.embedding.width = number(config, "d_embed");
  for (const Json& cutoff : config.at("cutoffs"))
    options.embedding.cutoffs.push_back(whole(cutoff, "cutoffs"));
  options.embedding.div_val = number(config, "div_val");
  options.embedding.tie_weights = config.at("tie_weights").get<bool>();
  const auto tied = config.at("tie_projections").get<std::vector<bool>>();
  const bool projected = options.embedding.div_val > 1 || options.embedding.width != cell.width;
  for (size_t i = 0; i < tied.size() && projected && i <= options.embedding.cutoffs.size(); ++i) {
    if (tied[i]) options.embedding.tied_projections.push_back(int64_t(i));
  }
  return options;
}

ModelOptions published_trellisnet(const Json& config) {
  TrellisNet cell;
  cell.input = number(config, "d_embed");
  cell.hidden = number(config, "n_hidden");
  cell.output = number(config, "n_out");
  cell.kernel = number(config, "kernel_size");
  cell.dilation = number(config, "dilation");
  cell.weight_norm = config.at("weight_norm").get<bool>();
  validate(cell, "config");
  ModelOptions options;
  options.cell = cell;
  options.embedding.scaled = false;
  options.embedding.tie_weights = config.at("tie_weights").get<bool>();
  return options;
}

/// `use` of the parsed settings; what JSON says of a wrong one becomes an error of ours.
template <class Use>
auto with_config(const std::string& config_json, Use&& use) {
  try {
    return use(Json::parse(config_json));
  } catch (const Json::exception& error) {
    std::string_view text = error.what();
    text.remove_prefix(std::min(text.size(), text.find(']') + 2));  // "[json.exception....] "
    throw Error(fmt::format("config: {}; expected an object with the published settings",
                            printable(text, 200)));
  }
}

}  // namespace

ModelOptions published_options(const std::string& config_json) {
  return with_config(config_json, [](const Json& config) {
    const std::string kind = config.at("kind");
    if (kind == "deq-transformer") return published_transformer(config);
    DEQ_CHECK(kind == "deq-trellisnet", "config: kind '{}'; expected {}", printable(kind),
              kPublishedKinds);
    return published_trellisnet(config);
  });
}

std::optional<int64_t> published_number(const std::string& config_json, const std::string& key) {
  return with_config(config_json, [&](const Json& config) -> std::optional<int64_t> {
    if (!config.contains(key)) return std::nullopt;
    return number(config, key.c_str());
  });
}

int64_t published_vocabulary(const std::string& config_json) {
  const auto tokens = published_number(config_json, "vocab");
  DEQ_CHECK(tokens, "config: vocab is missing; expected the number of tokens");
  DEQ_CHECK(*tokens >= 2, "config: vocab = {}; expected >= 2 tokens", *tokens);
  return *tokens;
}

std::map<std::string, std::string> published_names(const LanguageModel& model) {
  std::set<std::string> ours;
  for (const auto& item : model.named_parameters()) ours.insert(item.key());
  for (const auto& item : model.named_buffers()) ours.insert(item.key());
  std::map<std::string, std::string> names;
  const auto add = [&](const std::string& published, const std::string& own) {
    if (ours.count(own)) names.emplace(published, own);
    return ours.count(own) > 0;
  };
  for (const auto& [published, own] : kLinears) {
    for (const auto& [their_leaf, our_leaf] : kLeaves) {
      add(std::string(published) + their_leaf, std::string(own) + our_leaf);
    }
  }
  add("func.dec_attn.r_w_bias", "cell.content_bias");
  add("func.dec_attn.r_r_bias", "cell.position_bias");
  add("pos_emb.inv_freq", "cell.frequency");
  add("crit.cluster_weight", "softmax.cluster_weight");
  add("crit.cluster_bias", "softmax.cluster_bias");
  add("encoder.weight", "embedding.table0");
  if (!add("decoder.weight", "softmax.table0")) add("decoder.weight", "embedding.table0");
  add("decoder.bias", "softmax.bias0");
  const EmbeddingOptions& embedding = model.options().embedding;
  for (size_t i = 0; i <= embedding.cutoffs.size(); ++i) {
    const std::string n = std::to_string(i);
    const std::string shared = "embedding.projection" + (embedding.div_val == 1 ? "0" : n);
    add("word_emb.emb_layers." + n + ".weight", "embedding.table" + n);
    add("word_emb.emb_projs." + n + ".weight", "embedding.projection" + n);
    add("crit.out_layers." + n + ".bias", "softmax.bias" + n);
    if (!add("crit.out_layers." + n + ".weight", "softmax.table" + n)) {
      add("crit.out_layers." + n + ".weight", "embedding.table" + n);
    }
    if (!add("crit.out_projs." + n + ".weight", "softmax.projection" + n)) {
      add("crit.out_projs." + n + ".weight", shared);
    }
  }
  return names;
}

void load_published(LanguageModel& model, const std::map<std::string, at::Tensor>& weights) {
  const auto names = published_names(model);
  const auto parameters = model.named_parameters();
  std::set<std::string> missing, taken;
  const auto buffers = model.named_buffers();
  for (const auto& item : parameters) missing.insert(item.key());
  c10::AutoGradMode no_tape(false);
  for (const auto& [stored, tensor] : weights) {
    const std::string published = without_wrapper(stored);
    if (is_copy(published)) continue;
    const auto own = names.find(published);
    DEQ_CHECK(own != names.end(), "weight '{}' does not belong to this model",
              printable(published));
    const at::Tensor* held = parameters.find(own->second);
    at::Tensor parameter = held ? *held : buffers[own->second];
    const bool fits = tensor.dim() == parameter.dim()
                          ? tensor.sizes() == parameter.sizes()
                          : tensor.dim() > parameter.dim() && tensor.size(0) == parameter.size(0) &&
                                tensor.numel() == parameter.numel();
    DEQ_CHECK(fits, "weight '{}' has shape [{}]; expected [{}]", printable(published),
              fmt::join(tensor.sizes(), ", "), fmt::join(parameter.sizes(), ", "));
    const at::Tensor value = tensor.reshape(parameter.sizes()).to(parameter.scalar_type());
    DEQ_CHECK(!taken.count(own->second) || at::equal(parameter, value),
              "weight '{}' differs from another that the settings tie it to; expected equal ones",
              printable(published));
    taken.insert(own->second);
    parameter.copy_(value);
    missing.erase(own->second);
  }
  for (const std::string& own : missing) {
    std::string shortest;  // the parameter itself, where the published code keeps copies
    for (const auto& [published, name] : names) {
      if (name == own && (shortest.empty() || published.size() < shortest.size()))
        shortest = published;
    }
    DEQ_CHECK(shortest.empty(), "weight '{}' is missing", shortest);
  }
}

}  // namespace deq
