# The sources are the folder that contains packaging/.
get_filename_component(SOURCE_PATH "${CMAKE_CURRENT_LIST_DIR}/../../.." ABSOLUTE)
find_program(CARGO cargo REQUIRED)

if(VCPKG_TARGET_ARCHITECTURE STREQUAL "x64")
    set(machine "x86_64")
else()
    set(machine "aarch64")
endif()
if(VCPKG_TARGET_IS_MINGW)
    set(target "${machine}-pc-windows-gnu")
elseif(VCPKG_TARGET_IS_WINDOWS)
    set(target "${machine}-pc-windows-msvc")
elseif(VCPKG_TARGET_IS_OSX)
    set(target "${machine}-apple-darwin")
else()
    set(target "${machine}-unknown-linux-gnu")
endif()

vcpkg_execute_required_process(
    COMMAND "${CARGO}" xtask install --prefix / --destdir "${CURRENT_PACKAGES_DIR}"
        --target "${target}" --target-dir "${CURRENT_BUILDTREES_DIR}/cargo"
    WORKING_DIRECTORY "${SOURCE_PATH}"
    LOGNAME "install-${TARGET_TRIPLET}"
)
# Debug programs use the release as well.
set(VCPKG_POLICY_MISMATCHED_NUMBER_OF_BINARIES enabled)
# The CMake files find the libraries relative to their own folder, where find_package looks for
# them.
set(VCPKG_POLICY_SKIP_MISPLACED_CMAKE_FILES_CHECK enabled)

# The triplet says which of the two libraries it wants.
if(VCPKG_LIBRARY_LINKAGE STREQUAL "dynamic")
    if(VCPKG_TARGET_IS_WINDOWS)
        file(REMOVE "${CURRENT_PACKAGES_DIR}/lib/ghl_oauth.lib")
    endif()
    file(REMOVE "${CURRENT_PACKAGES_DIR}/lib/libghl_oauth.a")
else()
    file(GLOB shared "${CURRENT_PACKAGES_DIR}/lib/libghl_oauth.so*"
        "${CURRENT_PACKAGES_DIR}/lib/libghl_oauth*.dylib"
        "${CURRENT_PACKAGES_DIR}/lib/*.dll.*" "${CURRENT_PACKAGES_DIR}/lib/ghl_oauth.def")
    if(shared)
        file(REMOVE ${shared})
    endif()
    file(REMOVE_RECURSE "${CURRENT_PACKAGES_DIR}/bin")
endif()

# The libraries contain crates, whose licences require their texts.
vcpkg_find_acquire_program(PYTHON3)
set(third_parties "${CURRENT_BUILDTREES_DIR}/THIRD-PARTY-LICENSES.txt")
vcpkg_execute_required_process(
    COMMAND "${PYTHON3}" .ci/release --licences "${third_parties}"
    WORKING_DIRECTORY "${SOURCE_PATH}"
    LOGNAME "licences-${TARGET_TRIPLET}"
)
vcpkg_install_copyright(
    FILE_LIST "${SOURCE_PATH}/LICENSE-MIT" "${SOURCE_PATH}/LICENSE-APACHE" "${third_parties}"
)
