# Applies KVMSNAP_SANITIZE to every target that is made after this file.
if(KVMSNAP_SANITIZE)
  if(KVMSNAP_SANITIZE MATCHES "thread" AND KVMSNAP_SANITIZE MATCHES "address")
    message(FATAL_ERROR "KVMSNAP_SANITIZE: thread excludes address; build them in two directories")
  endif()
  # Of debugging information only what reports show, files and lines: the whole takes a quarter of the
  # compile time.
  add_compile_options(
    -fsanitize=${KVMSNAP_SANITIZE} -fno-sanitize-recover=all -fno-omit-frame-pointer -g1 -O1)
  add_link_options(-fsanitize=${KVMSNAP_SANITIZE})
endif()
if(KVMSNAP_FUZZ)
  if(NOT CMAKE_CXX_COMPILER_ID MATCHES "Clang")
    message(FATAL_ERROR
      "KVMSNAP_FUZZ needs clang and its runtime: apt-get install clang libclang-rt-14-dev, then "
      "configure with -DCMAKE_C_COMPILER=clang -DCMAKE_CXX_COMPILER=clang++")
  endif()
  add_compile_options(-fsanitize=fuzzer-no-link)
endif()
