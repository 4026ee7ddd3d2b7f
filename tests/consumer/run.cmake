# Installs our build into a new folder, builds the consumer against that alone, and runs it.
# Needs BUILD (our build folder), SOURCE (the consumer), README (whose block is compiled too), WORK,
# CXX and PREFIX_PATH (LibTorch's).
file(REMOVE_RECURSE ${WORK})
file(MAKE_DIRECTORY ${WORK})
foreach(step IN ITEMS
    "${CMAKE_COMMAND}|--install|${BUILD}|--prefix|${WORK}/prefix"
    "${CMAKE_COMMAND}|-G|Ninja|-S|${SOURCE}|-B|${WORK}/build|-DREADME=${README}|-DCMAKE_CXX_COMPILER=${CXX}|-DCMAKE_PREFIX_PATH=${WORK}/prefix;${PREFIX_PATH}"
    "${CMAKE_COMMAND}|--build|${WORK}/build"
    "${WORK}/build/consumer"
    "${WORK}/build/readme")
  string(REPLACE ";" "\\;" step "${step}")
  string(REPLACE "|" ";" step "${step}")
  execute_process(COMMAND ${step} TIMEOUT 900 RESULT_VARIABLE failed OUTPUT_VARIABLE out ERROR_VARIABLE out)
  if(failed)
    message(FATAL_ERROR "${step}: ${failed}\n${out}")
  endif()
endforeach()
