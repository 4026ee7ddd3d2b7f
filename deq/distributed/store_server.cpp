#include "deq/distributed/store_server.h"

#include "deq/base/error.h"
#ifdef DEQ_WITH_DISTRIBUTED
#include "deq/distributed/c10d_store.h"
#include "deq/distributed/quiet_logs.h"

namespace deq {

struct StoreServer::Work {
  c10::intrusive_ptr<c10d::TCPStore> store;
};

StoreServer::StoreServer() : work_(std::make_unique<Work>()) {
  const QuietLogs quiet;
  try {
    work_->store = open_store("127.0.0.1", 0, true, c10d::TCPStoreOptions().timeout);
  } catch (const std::exception& error) {
    throw Error(fmt::format("cannot serve at 127.0.0.1: {}", reason_of(error)));
  }
}

int64_t StoreServer::port() const { return work_->store->getPort(); }

}  // namespace deq
#else
#include "deq/distributed/rendezvous.h"

namespace deq {

struct StoreServer::Work {};

StoreServer::StoreServer() { throw Error(why_alone()); }
int64_t StoreServer::port() const { return 0; }

}  // namespace deq
#endif

namespace deq {

StoreServer::~StoreServer() = default;

}  // namespace deq
