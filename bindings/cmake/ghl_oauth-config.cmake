# find_package(ghl_oauth CONFIG). Targets: ghl_oauth::ghl_oauth is the shared library;
# ghl_oauth::static is the static library with the system libraries that it needs, for programs
# without a run-time dependency; ghl_oauth::typed_c compiles the typed structs into a C program,
# which links one of the libraries as well. Each exists if it is installed; the COMPONENTS shared,
# static and typed_c require them.
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
# An installation for Windows can have an import library for each linker.
if(MSVC)
    _ghl_oauth_find(_ghl_oauth_import ghl_oauth.dll.lib)
    _ghl_oauth_find(_ghl_oauth_static ghl_oauth.lib)
else()
    _ghl_oauth_find(_ghl_oauth_import libghl_oauth.dll.a ghl_oauth.dll.lib)
    _ghl_oauth_find(_ghl_oauth_static libghl_oauth.a)
endif()
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

# The .pc file has the system libraries that rustc reported for the static library.
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

# Not linked with one of the libraries, because the program chooses between them.
set(_ghl_oauth_typed_c "${_ghl_oauth_prefix}/share/ghl_oauth/ghl_oauth_typed.c")
if(EXISTS "${_ghl_oauth_typed_c}")
    set(ghl_oauth_typed_c_FOUND TRUE)
    if(NOT TARGET ghl_oauth::typed_c)
        add_library(ghl_oauth::typed_c INTERFACE IMPORTED)
        set_target_properties(ghl_oauth::typed_c PROPERTIES
            INTERFACE_SOURCES "${_ghl_oauth_typed_c}"
            INTERFACE_INCLUDE_DIRECTORIES "${_ghl_oauth_prefix}/include")
    endif()
endif()

foreach(_ghl_oauth_component ${ghl_oauth_FIND_COMPONENTS})
    if(ghl_oauth_FIND_REQUIRED_${_ghl_oauth_component}
       AND NOT ghl_oauth_${_ghl_oauth_component}_FOUND)
        set(ghl_oauth_FOUND FALSE)
        set(ghl_oauth_NOT_FOUND_MESSAGE
            "ghl_oauth: no ${_ghl_oauth_component} library below ${_ghl_oauth_prefix} "
            "(components: shared, static, typed_c)")
    endif()
endforeach()

if(NOT ghl_oauth_shared_FOUND AND NOT ghl_oauth_static_FOUND AND NOT ghl_oauth_NOT_FOUND_MESSAGE)
    set(ghl_oauth_FOUND FALSE)
    set(ghl_oauth_NOT_FOUND_MESSAGE
        "ghl_oauth: no library below ${_ghl_oauth_prefix}, only its CMake files (install it again)")
endif()
