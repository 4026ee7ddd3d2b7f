# cmake --install: headers, library, command, and what find_package(deq) needs.
include(CMakePackageConfigHelpers)
set(DEQ_CONFIG_DIR ${CMAKE_INSTALL_LIBDIR}/cmake/deq)
install(DIRECTORY ${PROJECT_SOURCE_DIR}/deq DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}
        FILES_MATCHING PATTERN "*.h")
install(TARGETS deq EXPORT deqTargets ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(EXPORT deqTargets NAMESPACE deq:: DESTINATION ${DEQ_CONFIG_DIR})
if(TARGET deq_cli)
  install(TARGETS deq_cli RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
endif()
configure_package_config_file(${PROJECT_SOURCE_DIR}/cmake/deqConfig.cmake.in deqConfig.cmake
                              INSTALL_DESTINATION ${DEQ_CONFIG_DIR})
write_basic_package_version_file(deqConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/deqConfig.cmake ${PROJECT_BINARY_DIR}/deqConfigVersion.cmake
        DESTINATION ${DEQ_CONFIG_DIR})
