# Debian's LibTorch asks the loader for libblas.so.3 and gets what the alternatives system points at.
# Where the pthread build of OpenBLAS is installed too, that is the pthread build, whose threads fight
# ATen's (a cell evaluation takes twice as long). So our executables carry the folder of the OpenMP
# build as DT_RPATH, which the loader honours for LibTorch's own look-ups as well; the newer
# DT_RUNPATH it would not, hence --disable-new-dtags in deq_flags.
file(GLOB DEQ_OPENBLAS_DIR /usr/lib/${CMAKE_LIBRARY_ARCHITECTURE}/openblas-openmp)
set(CMAKE_INSTALL_RPATH_USE_LINK_PATH ON)
set(CMAKE_BUILD_WITH_INSTALL_RPATH ON)  # no second link at install, nor padding of the path
if(DEQ_OPENBLAS_DIR)
  list(APPEND CMAKE_INSTALL_RPATH ${DEQ_OPENBLAS_DIR})
endif()
