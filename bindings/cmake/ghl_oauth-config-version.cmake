# The version of the installed header. The ABI only grows, so a newer version satisfies a request
# for an older one.

set(_ghl_oauth_header "${CMAKE_CURRENT_LIST_DIR}/../../../include/ghl_oauth.h")
if(NOT EXISTS "${_ghl_oauth_header}")
    set(PACKAGE_VERSION_UNSUITABLE TRUE)
    return()
endif()
file(STRINGS "${_ghl_oauth_header}" PACKAGE_VERSION
    REGEX "^#define GHL_OAUTH_VERSION \"")
string(REGEX REPLACE "^.*\"(.*)\".*$" "\\1" PACKAGE_VERSION "${PACKAGE_VERSION}")

if(PACKAGE_FIND_VERSION VERSION_GREATER PACKAGE_VERSION)
    set(PACKAGE_VERSION_COMPATIBLE FALSE)
else()
    set(PACKAGE_VERSION_COMPATIBLE TRUE)
    if(PACKAGE_FIND_VERSION VERSION_EQUAL PACKAGE_VERSION)
        set(PACKAGE_VERSION_EXACT TRUE)
    endif()
endif()
