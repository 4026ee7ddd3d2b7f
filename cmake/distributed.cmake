# Training on several processes needs c10d with Gloo: LibTorch's headers of it, and Gloo's own, which
# Debian has in libgloo-dev. Without them deq is built all the same, for one process.
set(DEQ_DISTRIBUTED OFF)
find_path(DEQ_C10D_INCLUDE_DIR torch/csrc/distributed/c10d/ProcessGroupGloo.hpp
          HINTS ${TORCH_INCLUDE_DIRS})
find_path(DEQ_GLOO_INCLUDE_DIR gloo/rendezvous/store.h HINTS ${TORCH_INCLUDE_DIRS})
if(NOT DEQ_WITH_DISTRIBUTED)
  message(STATUS "deq: built for one process: DEQ_WITH_DISTRIBUTED is off")
elseif(DEQ_C10D_INCLUDE_DIR AND DEQ_GLOO_INCLUDE_DIR)
  set(DEQ_DISTRIBUTED ON)
  set_source_files_properties(deq/distributed/c10d_group.cpp deq/distributed/c10d_store.cpp
                              deq/distributed/quiet_logs.cpp deq/distributed/store_server.cpp PROPERTIES
                              COMPILE_DEFINITIONS "DEQ_WITH_DISTRIBUTED;USE_C10D_GLOO")
else()
  message(STATUS "deq: built for one process: no headers of c10d with Gloo (Debian: libgloo-dev)")
endif()
