# kvmsnap_test(devices/serial_test.cc [LABELS kvm])   a Catch2 executable; each case is a ctest test
# kvmsnap_fuzz(serial)                                fuzz/serial_fuzz.cc, for libFuzzer or at random
#
# The label `kvm` marks tests that need /dev/kvm.
find_package(Catch2 QUIET)
if(NOT Catch2_FOUND)
  message(FATAL_ERROR
    "The native tests need Catch2: apt-get install catch2, or configure with -DKVMSNAP_TESTS=OFF")
endif()
include(Catch)

# Where a program's address space is laid out at random, ThreadSanitizer of GCC 12 can find its
# shadow memory taken; so its programs run without that.
if(KVMSNAP_SANITIZE MATCHES "thread")
  set(CMAKE_CROSSCOMPILING_EMULATOR setarch;--addr-no-randomize)
endif()

# A filter that matches no case must fail, so that no test passes by not being run: a case whose
# name has a semicolon would, for one. Catch2 3 does that by itself.
if(Catch2_VERSION VERSION_LESS 3)
  set(kvmsnap_test_arguments --warn NoTests)
endif()

function(kvmsnap_test source)
  cmake_parse_arguments(test "" "" "LABELS" ${ARGN})
  get_filename_component(name ${source} NAME_WE)
  add_executable(${name} ${source})
  target_link_libraries(${name} PRIVATE kvmsnap_core kvmsnap_test_main)
  # Catch2's macros are most of the compile time, and the tests' own code is not hot.
  target_compile_options(${name} PRIVATE -O0)
  if(NOT test_LABELS)
    set(test_LABELS unit)
  endif()
  catch_discover_tests(${name}
    TEST_PREFIX "${name}:"
    EXTRA_ARGS ${kvmsnap_test_arguments}
    PROPERTIES LABELS "${test_LABELS}" TIMEOUT 120)
endfunction()

function(kvmsnap_fuzz device)
  set(name ${device}_fuzz)
  add_executable(${name} fuzz/${name}.cc)
  target_link_libraries(${name} PRIVATE kvmsnap_core)
  if(KVMSNAP_FUZZ)
    target_link_options(${name} PRIVATE -fsanitize=fuzzer)
    add_test(NAME ${name} COMMAND ${name} -runs=200000 -max_len=4096 -seed=1)
  else()
    target_sources(${name} PRIVATE fuzz/random_driver.cc)
    add_test(NAME ${name} COMMAND ${name} 2000 1)
  endif()
  set_tests_properties(${name} PROPERTIES TIMEOUT 120 LABELS fuzz)
endfunction()
