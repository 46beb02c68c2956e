# The addon as node-gyp builds it, but with this build's options. cmake-js gives the directories of
# the N-API headers; without it they are looked up in node_modules.
if(CMAKE_JS_INC)
  set(kvmsnap_napi_includes ${CMAKE_JS_INC})
else()
  foreach(package node-addon-api node-api-headers)
    execute_process(
      COMMAND node -p "require('${package}').include_dir"
      WORKING_DIRECTORY ${CMAKE_CURRENT_SOURCE_DIR}
      OUTPUT_VARIABLE directory
      OUTPUT_STRIP_TRAILING_WHITESPACE
      RESULT_VARIABLE failed
      ERROR_QUIET)
    if(failed)
      message(FATAL_ERROR "${package} is not installed: run npm ci, or configure with -DKVMSNAP_ADDON=OFF")
    endif()
    get_filename_component(directory ${directory} ABSOLUTE BASE_DIR ${CMAKE_CURRENT_SOURCE_DIR})
    list(APPEND kvmsnap_napi_includes ${directory})
  endforeach()
endif()

function(kvmsnap_add_addon)
  add_library(kvmsnap MODULE ${ARGN})
  set_target_properties(kvmsnap PROPERTIES PREFIX "" SUFFIX ".node")
  target_include_directories(kvmsnap SYSTEM PRIVATE ${kvmsnap_napi_includes})
  target_compile_definitions(kvmsnap PRIVATE NAPI_VERSION=9 NODE_ADDON_API_DISABLE_DEPRECATED
    NODE_API_SWALLOW_UNTHROWABLE_EXCEPTIONS)
  target_link_libraries(kvmsnap PRIVATE kvmsnap_core)
  # A thread may still run the addon's code when the last environment is gone.
  target_link_options(kvmsnap PRIVATE -Wl,-z,nodelete)
endfunction()
