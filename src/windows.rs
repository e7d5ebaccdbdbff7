//! Windows API calls that neither std nor a dependency offers as safe code: access control lists
//! as text (SDDL), and the interrupt time.

use std::ffi::c_void;
use std::fs::File;
use std::io::{Error, Result};
use std::os::windows::ffi::OsStrExt;
use std::os::windows::io::{FromRawHandle, OwnedHandle};
use std::path::{Component, Path, PathBuf, Prefix};
use std::ptr::null_mut;
use std::time::Duration;

use windows_sys::Win32::Foundation::{
    ERROR_SUCCESS, GENERIC_WRITE, INVALID_HANDLE_VALUE, LocalFree,
};
use windows_sys::Win32::Security::Authorization::{
    ConvertSecurityDescriptorToStringSecurityDescriptorW, ConvertSidToStringSidW,
    ConvertStringSecurityDescriptorToSecurityDescriptorW, GetNamedSecurityInfoW, SDDL_REVISION_1,
    SE_FILE_OBJECT,
};
use windows_sys::Win32::Security::{
    DACL_SECURITY_INFORMATION, GetTokenInformation, OWNER_SECURITY_INFORMATION,
    SECURITY_ATTRIBUTES, SetFileSecurityW, TOKEN_QUERY, TOKEN_USER, TokenUser,
};
use windows_sys::Win32::Storage::FileSystem::{
    CREATE_NEW, CreateDirectoryW, CreateFileW, FILE_ATTRIBUTE_NORMAL, FILE_SHARE_READ,
    FILE_SHARE_WRITE,
};
use windows_sys::Win32::System::SystemInformation::GetTickCount64;
use windows_sys::Win32::System::Threading::{
    GetCurrentProcess, GetCurrentThread, OpenProcessToken, OpenThreadToken,
};

/// Time since the system was started, including the time that it slept, in steps of some 16 ms.
/// The performance counter, which std reads, need not count while the system sleeps.
pub fn uptime() -> Duration {
    // SAFETY: it has no arguments.
    Duration::from_millis(unsafe { GetTickCount64() })
}

/// The path in the form `\\?\C:\folder\file`, which may be longer than 260 characters.
/// Paths without a drive are unchanged.
pub fn verbatim(path: &Path) -> PathBuf {
    let Ok(path) = std::path::absolute(path) else { return path.to_owned() };
    match path.components().next() {
        Some(Component::Prefix(prefix)) if matches!(prefix.kind(), Prefix::Disk(_)) => {
            let mut verbatim = std::ffi::OsString::from(r"\\?\");
            verbatim.push(path);
            verbatim.into()
        }
        _ => path,
    }
}

/// The owner and the access control list of a file or folder, in SDDL.
pub fn security(path: &Path) -> Result<String> {
    let path = wide(verbatim(path).as_os_str());
    let wanted = OWNER_SECURITY_INFORMATION | DACL_SECURITY_INFORMATION;
    let mut descriptor = Local(null_mut());
    // SAFETY: `path` ends with a zero, and the pointers that are not null are valid for a write.
    let status = unsafe {
        GetNamedSecurityInfoW(
            path.as_ptr(),
            SE_FILE_OBJECT,
            wanted,
            null_mut(),
            null_mut(),
            null_mut(),
            null_mut(),
            &mut descriptor.0,
        )
    };
    if status != ERROR_SUCCESS {
        return Err(Error::from_raw_os_error(status.cast_signed()));
    }
    text_of(&descriptor)
}

/// Replaces the access control list of a file or folder by the one in `sddl`.
pub fn set_security(path: &Path, sddl: &str) -> Result<()> {
    let path = wide(verbatim(path).as_os_str());
    let descriptor = descriptor_of(sddl)?;
    // SAFETY: `path` ends with a zero, and the descriptor is valid.
    succeeded(unsafe { SetFileSecurityW(path.as_ptr(), DACL_SECURITY_INFORMATION, descriptor.0) })
}

/// Creates a file, which must not exist, for writing. Other processes may open it, but neither
/// rename nor remove it.
pub fn create_file(path: &Path, sddl: &str) -> Result<File> {
    let path = wide(verbatim(path).as_os_str());
    let descriptor = descriptor_of(sddl)?;
    // SAFETY: `path` ends with a zero, and the attributes outlive the call.
    let handle = unsafe {
        CreateFileW(
            path.as_ptr(),
            GENERIC_WRITE,
            FILE_SHARE_READ | FILE_SHARE_WRITE,
            &descriptor.attributes(),
            CREATE_NEW,
            FILE_ATTRIBUTE_NORMAL,
            null_mut(),
        )
    };
    if handle == INVALID_HANDLE_VALUE {
        return Err(Error::last_os_error());
    }
    // SAFETY: the handle is open and has no other owner.
    Ok(unsafe { File::from_raw_handle(handle) })
}

/// Creates a folder, which must not exist.
pub fn create_folder(path: &Path, sddl: &str) -> Result<()> {
    let path = wide(verbatim(path).as_os_str());
    let descriptor = descriptor_of(sddl)?;
    // SAFETY: `path` ends with a zero, and the attributes outlive the call.
    succeeded(unsafe { CreateDirectoryW(path.as_ptr(), &descriptor.attributes()) })
}

/// The user of this thread, as SDDL names it: the user that it impersonates, otherwise the user of
/// the process.
pub fn user() -> Result<String> {
    let mut token = null_mut();
    // SAFETY: the handles of the thread and of the process need no closing, and `token` is valid
    // for a write.
    unsafe {
        if OpenThreadToken(GetCurrentThread(), TOKEN_QUERY, 1, &mut token) == 0 {
            succeeded(OpenProcessToken(GetCurrentProcess(), TOKEN_QUERY, &mut token))?;
        }
    }
    // SAFETY: the handle is open and has no other owner.
    let _token = unsafe { OwnedHandle::from_raw_handle(token) };
    // A SID has at most 68 bytes. The elements are pointers, for the alignment of TOKEN_USER.
    let mut buffer = [null_mut::<c_void>(); 32];
    let mut length = 0;
    // SAFETY: the buffer is valid for a write of its size.
    succeeded(unsafe {
        GetTokenInformation(
            token,
            TokenUser,
            buffer.as_mut_ptr().cast(),
            size_of_val(&buffer).try_into().unwrap_or(0),
            &mut length,
        )
    })?;
    let mut text = Local(null_mut());
    // SAFETY: the buffer begins with a TOKEN_USER, whose SID is in the buffer.
    succeeded(unsafe {
        let user = buffer.as_ptr().cast::<TOKEN_USER>();
        ConvertSidToStringSidW((*user).User.Sid, (&raw mut text.0).cast())
    })?;
    // Converted twice, since SDDL has names of its own for some users.
    let owner = text_of(&descriptor_of(&format!("O:{}", text.read()))?)?;
    Ok(owner.trim_start_matches("O:").to_owned())
}

/// Memory that Windows has allocated for its caller: a security descriptor, or text that ends
/// with a zero.
struct Local(*mut c_void);

impl Local {
    fn read(&self) -> String {
        let text = self.0.cast::<u16>().cast_const();
        let mut length = 0;
        // SAFETY: the text ends with a zero.
        unsafe {
            while *text.add(length) != 0 {
                length += 1;
            }
            String::from_utf16_lossy(std::slice::from_raw_parts(text, length))
        }
    }

    fn attributes(&self) -> SECURITY_ATTRIBUTES {
        SECURITY_ATTRIBUTES {
            nLength: size_of::<SECURITY_ATTRIBUTES>().try_into().unwrap_or(0),
            lpSecurityDescriptor: self.0,
            bInheritHandle: 0,
        }
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        // SAFETY: null, or memory that is to be freed by LocalFree.
        unsafe { LocalFree(self.0) };
    }
}

fn descriptor_of(sddl: &str) -> Result<Local> {
    let sddl = wide(sddl.as_ref());
    let mut descriptor = Local(null_mut());
    // SAFETY: the text ends with a zero, and the descriptor is valid for a write.
    succeeded(unsafe {
        ConvertStringSecurityDescriptorToSecurityDescriptorW(
            sddl.as_ptr(),
            SDDL_REVISION_1,
            &mut descriptor.0,
            null_mut(),
        )
    })?;
    Ok(descriptor)
}

fn text_of(descriptor: &Local) -> Result<String> {
    let mut text = Local(null_mut());
    // SAFETY: the descriptor is valid, and the text is valid for a write.
    succeeded(unsafe {
        ConvertSecurityDescriptorToStringSecurityDescriptorW(
            descriptor.0,
            SDDL_REVISION_1,
            OWNER_SECURITY_INFORMATION | DACL_SECURITY_INFORMATION,
            (&raw mut text.0).cast(),
            null_mut(),
        )
    })?;
    Ok(text.read())
}

fn wide(text: &std::ffi::OsStr) -> Vec<u16> {
    text.encode_wide().chain([0]).collect()
}

fn succeeded(result: i32) -> Result<()> {
    if result == 0 { Err(Error::last_os_error()) } else { Ok(()) }
}
