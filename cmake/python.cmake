# Whether `import deq` can be built: for which Python, and why not where it cannot.
#
# DEQ_PYTHON_HERE     true where it can
# DEQ_PYTHON_SAYS     one line for `deq info`
# DEQ_PYTHON_*        what python/CMakeLists.txt needs
set(DEQ_PYTHON "/usr/bin/python3" CACHE FILEPATH "The Python whose torch `import deq` is built for")
option(DEQ_BUILD_PYTHON "Build `import deq`, where pybind11 and Python's torch are found"
       ${PROJECT_IS_TOP_LEVEL})

# What the interpreter says of itself; torch is not imported, which takes seconds.
set(ask "
import importlib.util, os, sys, sysconfig
torch = importlib.util.find_spec('torch')
print(sysconfig.get_paths()['include'])
print(sysconfig.get_config_var('EXT_SUFFIX'))
print('%d.%d' % sys.version_info[:2])
print(os.path.join(os.path.dirname(torch.origin), 'lib') if torch and torch.origin else '')
")

function(deq_find_python says)
  if(NOT DEQ_BUILD_PYTHON)
    set(${says} "not built: DEQ_BUILD_PYTHON is off" PARENT_SCOPE)
    return()
  endif()
  if(DEQ_SANITIZE)
    set(${says} "not built: a sanitizer's runtime would have to be in Python" PARENT_SCOPE)
    return()
  endif()
  execute_process(COMMAND ${DEQ_PYTHON} -c "${ask}" OUTPUT_VARIABLE answer RESULT_VARIABLE failed
                  ERROR_QUIET OUTPUT_STRIP_TRAILING_WHITESPACE)
  if(failed)
    set(${says} "not built: ${DEQ_PYTHON} does not run; set DEQ_PYTHON" PARENT_SCOPE)
    return()
  endif()
  string(REGEX REPLACE "\n" ";" answer "${answer}")
  list(APPEND answer "")  # where torch's line is empty and was stripped
  list(GET answer 0 include)
  list(GET answer 1 suffix)
  list(GET answer 2 version)
  list(GET answer 3 torch)
  set(PYBIND11_NOPYTHON ON)
  find_package(pybind11 2.10 CONFIG QUIET)
  if(NOT pybind11_FOUND)
    set(${says} "not built: pybind11 was not found (pybind11-dev)" PARENT_SCOPE)
    return()
  endif()
  if(NOT EXISTS ${include}/Python.h)
    set(${says} "not built: ${include}/Python.h was not found (libpython3-dev)" PARENT_SCOPE)
    return()
  endif()
  find_library(DEQ_TORCH_PYTHON torch_python PATHS ${torch} NO_DEFAULT_PATH NO_CACHE)
  if(NOT torch OR NOT DEQ_TORCH_PYTHON)
    set(${says} "not built: ${DEQ_PYTHON} has no torch (python3-torch)" PARENT_SCOPE)
    return()
  endif()
  # Two copies of LibTorch in one process would each have types, dispatcher and threads.
  file(REAL_PATH ${torch}/libtorch_cpu.so of_python)
  file(REAL_PATH ${TORCH_INSTALL_PREFIX}/lib/libtorch_cpu.so ours)
  if(NOT EXISTS ${ours})  # Debian has it in a folder for its architecture
    find_library(here torch_cpu NO_CACHE)
    file(REAL_PATH "${here}" ours)
  endif()
  if(NOT of_python STREQUAL ours)
    set(${says} "not built: ${DEQ_PYTHON} has another LibTorch, ${of_python}, than this build"
        PARENT_SCOPE)
    return()
  endif()
  set(${says} "import deq, Python ${version}, ${DEQ_PYTHON}" PARENT_SCOPE)
  set(DEQ_PYTHON_HERE TRUE PARENT_SCOPE)
  set(DEQ_PYTHON_INCLUDE ${include} PARENT_SCOPE)
  set(DEQ_PYTHON_SUFFIX ${suffix} PARENT_SCOPE)
  set(DEQ_PYTHON_VERSION ${version} PARENT_SCOPE)
  set(DEQ_PYTHON_LIBRARY ${DEQ_TORCH_PYTHON} PARENT_SCOPE)
endfunction()

deq_find_python(DEQ_PYTHON_SAYS)
message(STATUS "Python: ${DEQ_PYTHON_SAYS}")
