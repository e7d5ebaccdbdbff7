//! The `.pc` file.

use std::path::Path;

use crate::layout::Layout;
use crate::platform::Platform;

/// The `.pc` file of a layout. `private` names the system libraries that the static library needs.
pub fn file(layout: &Layout, platform: Platform, private: &str) -> String {
    let folder = |path: &Path| match path.strip_prefix(&layout.prefix) {
        Ok(below) => format!("${{prefix}}/{}", slashes(below)),
        Err(_) => slashes(path),
    };
    format!(
        "prefix={}\n\
         exec_prefix=${{prefix}}\n\
         libdir={}\n\
         includedir={}\n\
         # The folder of ghl_oauth_typed.c, to be compiled into a C program.\n\
         typed_c_dir={}\n\
         \n\
         Name: ghl_oauth\n\
         Description: OAuth 2.0 access to the GoHighLevel API\n\
         Version: {}\n\
         Libs: -L${{libdir}} -l{}\n\
         Libs.private: {private}\n\
         Cflags: -I${{includedir}}\n",
        prefix(layout),
        folder(&layout.libraries),
        folder(&layout.headers()),
        folder(&layout.sources()),
        env!("CARGO_PKG_VERSION"),
        platform.linked(),
    )
}

/// The prefix relative to the `.pc` file, so that the installed tree can be moved. Absolute for
/// `/usr`, because pkg-config omits the system's own folders only under their usual names, and for
/// a library folder outside the prefix.
fn prefix(layout: &Layout) -> String {
    let folder = layout.pkg_config();
    match folder.strip_prefix(&layout.prefix) {
        Ok(below) if layout.prefix != Path::new("/usr") => {
            format!("${{pcfiledir}}{}", "/..".repeat(below.components().count()))
        }
        _ => slashes(&layout.prefix),
    }
}

fn slashes(path: &Path) -> String {
    path.display().to_string().replace('\\', "/")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::{self, Command};

    fn written(line: &str) -> String {
        let Ok(Command::Install(options)) =
            options::parse(line.split_whitespace().map(str::to_owned))
        else {
            panic!("{line}");
        };
        let platform = Platform::of(options.target.as_deref());
        file(&Layout::new(&options).unwrap(), platform, "-lm")
    }

    #[test]
    fn linker_of_microsoft_gets_the_import_library() {
        let text = written("install --target x86_64-pc-windows-msvc");
        assert!(text.contains(" -lghl_oauth.dll\n"), "{text}");
        let text = written("install --target x86_64-pc-windows-gnu");
        assert!(text.contains(" -lghl_oauth\n"), "{text}");
    }

    #[test]
    fn paths_are_relative_to_the_file_unless_that_does_not_work() {
        for (line, prefix, libdir) in [
            ("install", "${pcfiledir}/../..", "${prefix}/lib"),
            (
                "install --prefix /opt/a --libdir lib/x86_64-linux-gnu",
                "${pcfiledir}/../../..",
                "${prefix}/lib/x86_64-linux-gnu",
            ),
            ("install --prefix /usr --libdir /usr/lib64", "/usr", "${prefix}/lib64"),
            ("install --prefix /opt/a --libdir /var/b", "/opt/a", "/var/b"),
        ] {
            let text = written(line);
            assert!(text.starts_with(&format!("prefix={prefix}\n")), "{line}: {text}");
            assert!(text.contains(&format!("\nlibdir={libdir}\n")), "{line}: {text}");
        }
    }
}
