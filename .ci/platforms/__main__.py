"""Builds the library and its tests for other platforms, and runs them on this Debian machine.

    python3 .ci/platforms [--update] [--resume] [PLATFORM ...]

Everything is installed from Debian's packages and crates.io. A test that cannot pass is left out by
name, with the reason. Each platform ends with its row of the table in docs/platforms.md; --update
writes it. --resume does not repeat the programs that passed in an earlier run and have not changed.
"""

import sys

import aarch64
import frame
import macos
import msvc
import musl
import portability
import windows

PLATFORMS = {
    "windows": windows.main,
    "aarch64": aarch64.main,
    "musl": musl.main,
    "i686": portability.i686,
    "s390x": portability.s390x,
    "macos": macos.aarch64,
    "macos-x86_64": macos.x86_64,
    "msvc": msvc.main,
}


def main(arguments):
    is_update = "--update" in arguments
    frame.Suite.is_resumed = "--resume" in arguments
    names = [name for name in arguments if not name.startswith("--")] or list(PLATFORMS)
    unknown = [name for name in names if name not in PLATFORMS]
    if unknown:
        print(f"{unknown}: not one of {list(PLATFORMS)}", file=sys.stderr)
        return 2
    is_good = True
    for name in names:
        frame.step(name)
        try:
            is_good &= PLATFORMS[name](is_update)
        except frame.Failed as failure:
            print(f"{name}: {failure}", file=sys.stderr)
            is_good = False
    frame.step("done")
    return 0 if is_good else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
