//! File names and linker options of each platform.

use std::env::consts;

/// The version of the shared library: the ABI's, not the package's (docs/abi.md). The major number
/// is the SONAME's, the minor one is `ghl_abi_version()`.
pub const ABI: &str = "1.1.0";

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Platform {
    /// Linux, FreeBSD and the others that use ELF.
    Elf,
    MacOs,
    WindowsMsvc,
    WindowsGnu,
}

impl Platform {
    /// The platform of a target triple, or of this program.
    pub fn of(target: Option<&str>) -> Self {
        let (os, is_msvc) = match target {
            Some(target) => (target, target.ends_with("msvc")),
            None => (consts::OS, cfg!(target_env = "msvc")),
        };
        match os {
            _ if os.contains("windows") && is_msvc => Self::WindowsMsvc,
            _ if os.contains("windows") => Self::WindowsGnu,
            _ if os.contains("macos") || os.contains("darwin") => Self::MacOs,
            _ => Self::Elf,
        }
    }

    /// The shared library as Cargo names it.
    pub fn shared(self) -> &'static str {
        match self {
            Self::Elf => "libghl_oauth.so",
            Self::MacOs => "libghl_oauth.dylib",
            Self::WindowsMsvc | Self::WindowsGnu => "ghl_oauth.dll",
        }
    }

    /// The shared library as it is installed, and the links to it. Programs are linked through the
    /// last one; the loader uses the first.
    pub fn versioned(self) -> (String, Vec<String>) {
        let major = ABI.split('.').next().unwrap_or(ABI);
        match self {
            Self::Elf => (
                format!("libghl_oauth.so.{ABI}"),
                vec![format!("libghl_oauth.so.{major}"), "libghl_oauth.so".to_owned()],
            ),
            Self::MacOs => (
                format!("libghl_oauth.{ABI}.dylib"),
                vec![format!("libghl_oauth.{major}.dylib"), "libghl_oauth.dylib".to_owned()],
            ),
            Self::WindowsMsvc | Self::WindowsGnu => (self.shared().to_owned(), Vec::new()),
        }
    }

    /// The static library.
    pub fn archive(self) -> &'static str {
        match self {
            Self::WindowsMsvc => "ghl_oauth.lib",
            _ => "libghl_oauth.a",
        }
    }

    /// The library through which Windows programs are linked to the DLL.
    pub fn import(self) -> Option<&'static str> {
        match self {
            Self::WindowsMsvc => Some("ghl_oauth.dll.lib"),
            Self::WindowsGnu => Some("libghl_oauth.dll.a"),
            Self::Elf | Self::MacOs => None,
        }
    }

    /// The name of the library for a linker's option `-l`.
    pub fn linked(self) -> &'static str {
        match self {
            // `ghl_oauth.lib` is the static library.
            Self::WindowsMsvc => "ghl_oauth.dll",
            _ => "ghl_oauth",
        }
    }

    /// The name by which programs find the library, which build.rs gives the linker.
    pub fn install_name(self) -> Option<String> {
        let major = ABI.split('.').next().unwrap_or(ABI);
        (self == Self::MacOs).then(|| format!("libghl_oauth.{major}.dylib"))
    }

    /// Options of rustc that give the shared library its version.
    pub fn version_options(self) -> Vec<String> {
        let major = ABI.split('.').next().unwrap_or(ABI);
        let arguments = match self {
            Self::Elf => vec![format!("-Wl,-soname,libghl_oauth.so.{major}")],
            Self::MacOs => vec![
                format!("-Wl,-current_version,{ABI}"),
                format!("-Wl,-compatibility_version,{major}.0.0"),
            ],
            Self::WindowsMsvc | Self::WindowsGnu => Vec::new(),
        };
        arguments.into_iter().map(|argument| format!("-Clink-arg={argument}")).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn target_triple_selects_the_platform() {
        for (triple, platform) in [
            ("x86_64-unknown-linux-musl", Platform::Elf),
            ("aarch64-unknown-freebsd", Platform::Elf),
            ("aarch64-apple-darwin", Platform::MacOs),
            ("x86_64-pc-windows-msvc", Platform::WindowsMsvc),
            ("x86_64-pc-windows-gnu", Platform::WindowsGnu),
        ] {
            assert_eq!(Platform::of(Some(triple)), platform, "{triple}");
        }
    }
}
