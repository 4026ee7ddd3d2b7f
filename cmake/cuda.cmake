# deq/gpu, where LibTorch is built for CUDA and its compiler is at hand; elsewhere LibTorch's operators
# do the work on a GPU.
if(NOT DEQ_WITH_CUDA OR NOT TORCH_CUDA_LIBRARIES)
  return()
endif()
if(NOT CMAKE_CUDA_ARCHITECTURES)
  set(CMAKE_CUDA_ARCHITECTURES native)
endif()
enable_language(CUDA)
find_package(CUDAToolkit REQUIRED)
# The kernels by themselves: neither the precompiled header nor the warnings of deq_flags are nvcc's.
set(DEQ_CUDA_SOURCES ${DEQ_GPU_SOURCES})
list(FILTER DEQ_CUDA_SOURCES INCLUDE REGEX "\\.cu$")
list(FILTER DEQ_GPU_SOURCES EXCLUDE REGEX "\\.cu$")
add_library(deq_kernels OBJECT ${DEQ_CUDA_SOURCES})
set_target_properties(deq_kernels PROPERTIES CUDA_STANDARD 20 POSITION_INDEPENDENT_CODE ON
                                             CUDA_RUNTIME_LIBRARY Shared)
target_include_directories(deq_kernels PRIVATE ${PROJECT_SOURCE_DIR})
target_sources(deq PRIVATE ${DEQ_GPU_SOURCES} $<TARGET_OBJECTS:deq_kernels>)
target_compile_definitions(deq PUBLIC DEQ_WITH_CUDA)
target_link_libraries(deq PUBLIC $<BUILD_INTERFACE:CUDA::cudart>)
set_target_properties(deq PROPERTIES CUDA_RUNTIME_LIBRARY Shared)
