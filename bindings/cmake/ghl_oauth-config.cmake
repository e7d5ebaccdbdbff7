# find_package(ghl_oauth CONFIG). Targets: ghl_oauth::ghl_oauth is the shared library;
# ghl_oauth::static is the static library with the system libraries that it needs, for programs
# without a run-time dependency. Each exists if it is installed; the COMPONENTS shared and static
# require them.
#
# All paths are relative to this file, so the installation is relocatable.

get_filename_component(_ghl_oauth_prefix "${CMAKE_CURRENT_LIST_DIR}/../../.." ABSOLUTE)
set(_ghl_oauth_lib "lib")
if(CMAKE_LIBRARY_ARCHITECTURE)
    list(INSERT _ghl_oauth_lib 0 "lib/${CMAKE_LIBRARY_ARCHITECTURE}")
endif()
list(APPEND _ghl_oauth_lib "lib64" "lib32" "bin")

# Finds the first of these files under the prefix.
macro(_ghl_oauth_find variable)
    set(${variable} "")
    foreach(_ghl_oauth_name ${ARGN})
        foreach(_ghl_oauth_folder ${_ghl_oauth_lib})
            set(_ghl_oauth_file "${_ghl_oauth_prefix}/${_ghl_oauth_folder}/${_ghl_oauth_name}")
            if(NOT ${variable} AND EXISTS "${_ghl_oauth_file}")
                set(${variable} "${_ghl_oauth_file}")
            endif()
        endforeach()
    endforeach()
endmacro()

_ghl_oauth_find(_ghl_oauth_shared libghl_oauth.so libghl_oauth.dylib ghl_oauth.dll)
_ghl_oauth_find(_ghl_oauth_import ghl_oauth.dll.lib ghl_oauth.dll.a)
_ghl_oauth_find(_ghl_oauth_static libghl_oauth.a ghl_oauth.lib)
_ghl_oauth_find(_ghl_oauth_pc pkgconfig/ghl_oauth.pc)

if(_ghl_oauth_shared AND NOT TARGET ghl_oauth::ghl_oauth)
    add_library(ghl_oauth::ghl_oauth SHARED IMPORTED)
    set_target_properties(ghl_oauth::ghl_oauth PROPERTIES
        IMPORTED_LOCATION "${_ghl_oauth_shared}"
        INTERFACE_INCLUDE_DIRECTORIES "${_ghl_oauth_prefix}/include")
    if(_ghl_oauth_import)
        set_target_properties(ghl_oauth::ghl_oauth PROPERTIES
            IMPORTED_IMPLIB "${_ghl_oauth_import}")
    endif()
endif()
set(ghl_oauth_shared_FOUND "${_ghl_oauth_shared}")

# The system libraries that rustc reported for the static library; cargo-c writes them to the .pc
# file.
if(_ghl_oauth_static AND _ghl_oauth_pc AND NOT TARGET ghl_oauth::static)
    file(STRINGS "${_ghl_oauth_pc}" _ghl_oauth_private REGEX "^Libs\\.private:")
    string(REGEX REPLACE "^Libs\\.private:" "" _ghl_oauth_private "${_ghl_oauth_private}")
    separate_arguments(_ghl_oauth_private UNIX_COMMAND "${_ghl_oauth_private}")
    # "-framework Security" is one argument.
    string(REPLACE "-framework;" "-framework " _ghl_oauth_private "${_ghl_oauth_private}")
    add_library(ghl_oauth::static STATIC IMPORTED)
    set_target_properties(ghl_oauth::static PROPERTIES
        IMPORTED_LOCATION "${_ghl_oauth_static}"
        IMPORTED_LINK_INTERFACE_LANGUAGES "C"
        INTERFACE_INCLUDE_DIRECTORIES "${_ghl_oauth_prefix}/include"
        INTERFACE_LINK_LIBRARIES "${_ghl_oauth_private}")
endif()
set(ghl_oauth_static_FOUND "${_ghl_oauth_static}")

foreach(_ghl_oauth_component ${ghl_oauth_FIND_COMPONENTS})
    if(ghl_oauth_FIND_REQUIRED_${_ghl_oauth_component}
       AND NOT ghl_oauth_${_ghl_oauth_component}_FOUND)
        set(ghl_oauth_FOUND FALSE)
        set(ghl_oauth_NOT_FOUND_MESSAGE
            "ghl_oauth: no ${_ghl_oauth_component} library below ${_ghl_oauth_prefix} "
            "(components: shared, static)")
    endif()
endforeach()

if(NOT ghl_oauth_shared_FOUND AND NOT ghl_oauth_static_FOUND AND NOT ghl_oauth_NOT_FOUND_MESSAGE)
    set(ghl_oauth_FOUND FALSE)
    set(ghl_oauth_NOT_FOUND_MESSAGE
        "ghl_oauth: no library below ${_ghl_oauth_prefix}, only its CMake files (install it again)")
endif()
