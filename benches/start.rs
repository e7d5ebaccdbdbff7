//! The cost before the first call: `cargo bench --bench start`. Loads the library, and creates the
//! first and a second client of a process with `ghl_client_new`. Each figure is the median of
//! 41 fresh processes.

use std::env;
use std::ffi::{CString, c_char, c_void};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::ptr::null_mut;
use std::time::{Duration, Instant};

use ghl_oauth::internals::ffi::{ghl_client, ghl_client_free, ghl_client_new};
use serde_json::{Value, json};

const PROCESSES: usize = 41;

/// The platform's certificates in one file, on most Linux systems.
const CERTIFICATES: [&str; 2] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt"];

fn main() {
    let mut arguments = env::args().skip(1);
    if arguments.next().as_deref() == Some("--one") {
        for time in one(&arguments.next().unwrap(), arguments.next().unwrap_or_default()) {
            println!("{}", time.as_nanos());
        }
        return;
    }
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let config = |more: Value| {
        let mut config = json!({"clientId": "app-1", "clientSecret": "secret"});
        config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        config.to_string()
    };

    if let Some(library) = library() {
        report("the library is loaded", "load", |_| library.display().to_string());
    }
    report("ghl_client_new, the memory store", "client", |_| config(json!({})));
    let sqlite = |name: String| {
        config(json!({"store": {"kind": "sqlite", "path": folder.path().join(name)}}))
    };
    report("ghl_client_new, SQLite, a new file", "client", |run| sqlite(format!("new-{run}.db")));
    report("ghl_client_new, SQLite, an existing file", "client", |_| sqlite("new-0.db".into()));
    if let Some(bundle) = CERTIFICATES.iter().find(|file| Path::new(file).exists()) {
        report(
            "ghl_client_new, http.caBundlePath with the platform's certificates",
            "client",
            |_| config(json!({"http": {"caBundlePath": bundle}})),
        );
    }
    report(
        "the platform's certificates are read, at the first request through TLS",
        "roots",
        |_| String::new(),
    );
}

/// Measures in a child process.
fn one(what: &str, argument: String) -> Vec<Duration> {
    let argument = CString::new(argument).unwrap();
    match what {
        "load" => vec![load(&argument)],
        "roots" => {
            let began = Instant::now();
            let certificates = rustls_native_certs::load_native_certs().certs;
            let took = began.elapsed();
            assert!(!certificates.is_empty());
            vec![took]
        }
        _ => {
            let mut clients = Vec::new();
            let times = (0..2).map(|_| {
                let mut client: *mut ghl_client = null_mut();
                let began = Instant::now();
                // SAFETY: a NUL-terminated text and a valid pointer for the client.
                let status = unsafe { ghl_client_new(argument.as_ptr(), &mut client, null_mut()) };
                let took = began.elapsed();
                assert_eq!(status, 0);
                clients.push(client);
                took
            });
            let times = times.collect();
            for client in clients {
                // SAFETY: created above, freed once.
                unsafe { ghl_client_free(client) };
            }
            times
        }
    }
}

/// Loads the shared library, binds all of its symbols, and calls it once.
#[cfg(unix)]
fn load(path: &CString) -> Duration {
    let began = Instant::now();
    // SAFETY: NUL-terminated texts, and a function of this type.
    unsafe {
        let library: *mut c_void = libc::dlopen(path.as_ptr(), libc::RTLD_NOW);
        assert!(!library.is_null());
        let version = libc::dlsym(library, c"ghl_version".as_ptr());
        assert!(!version.is_null());
        let version = std::mem::transmute::<*mut c_void, extern "C" fn() -> *const c_char>(version);
        assert!(!version().is_null());
    }
    began.elapsed()
}

#[cfg(not(unix))]
fn load(_: &CString) -> Duration {
    Duration::ZERO
}

/// The shared library of this build.
fn library() -> Option<PathBuf> {
    let file =
        env::current_exe().ok()?.with_file_name(format!("libghl_oauth{}", env::consts::DLL_SUFFIX));
    (cfg!(unix) && file.exists()).then_some(file)
}

fn report(what: &str, kind: &str, argument: impl Fn(usize) -> String) {
    let runs: Vec<Vec<u64>> = (0..PROCESSES)
        .map(|run| {
            let mut one = Command::new(env::current_exe().unwrap());
            let said = one.args(["--one", kind, &argument(run)]).output().unwrap();
            assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
            let text = String::from_utf8(said.stdout).unwrap();
            text.lines().map(|line| line.parse().unwrap()).collect()
        })
        .collect();
    let median = |place: usize| {
        let mut times: Vec<u64> = runs.iter().map(|times| times[place]).collect();
        times.sort_unstable();
        Duration::from_nanos(times[PROCESSES / 2])
    };
    match runs[0].len() {
        1 => println!("{what}: {:?}", median(0)),
        _ => println!("{what}: {:?}, the second client {:?}", median(0), median(1)),
    }
}
