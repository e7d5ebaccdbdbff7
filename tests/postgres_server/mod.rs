//! PostgreSQL servers and poolers for tests: created in a temporary folder, and stopped with the
//! test program however that ends.
#![allow(dead_code)] // Each test file uses only a part.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// The role of the tests. Its password needs escaping in a URL and must never be shown.
pub const ROLE: &str = "ghl";
pub const PASSWORD: &str = "canary/pass:w@rd-d41d8cd9";
pub const ENCODED_PASSWORD: &str = "canary%2Fpass%3Aw%40rd-d41d8cd9";

const ADMIN_PASSWORD: &str = "admin";

/// The limit for every operation here.
const PATIENCE: Duration = Duration::from_secs(60);

/// The folder of the server programs. Prints a note if it is missing.
pub fn programs() -> Option<&'static Path> {
    static PROGRAMS: OnceLock<Option<PathBuf>> = OnceLock::new();
    let find = || {
        let mut found: Vec<PathBuf> = fs::read_dir("/usr/lib/postgresql")
            .into_iter()
            .flatten()
            .filter_map(|entry| Some(entry.ok()?.path().join("bin")))
            .chain(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()))
            .filter(|folder| folder.join("initdb").exists() && folder.join("psql").exists())
            .collect();
        found.sort();
        if found.is_empty() {
            println!("skipped: tests of the PostgreSQL store (apt-get install postgresql)");
        }
        found.pop()
    };
    PROGRAMS.get_or_init(find).as_deref()
}

/// The PgBouncer program. Prints a note if it is missing.
pub fn pooler_program() -> Option<PathBuf> {
    let places = ["/usr/sbin/pgbouncer", "/usr/bin/pgbouncer", "/usr/local/bin/pgbouncer"];
    let found = places.into_iter().map(PathBuf::from).find(|place| place.exists());
    if found.is_none() {
        println!("skipped: tests through a pooler (apt-get install pgbouncer)");
    }
    found
}

/// The user and group of the servers, which refuse to run as root.
fn identity() -> Option<(u32, u32)> {
    // SAFETY: a call without side effects.
    if unsafe { libc::geteuid() } != 0 {
        return None;
    }
    let users = fs::read_to_string("/etc/passwd").unwrap();
    let of = |name: &str| {
        let line = users.lines().find(|line| line.split(':').next() == Some(name))?;
        let fields: Vec<&str> = line.split(':').collect();
        Some((fields[2].parse().ok()?, fields[3].parse().ok()?))
    };
    of("postgres").or_else(|| of("nobody"))
}

fn give_away(path: &Path) {
    if let Some((user, group)) = identity() {
        std::os::unix::fs::chown(path, Some(user), Some(group)).unwrap();
    }
}

fn folder() -> TempDir {
    let folder = tempfile::Builder::new().prefix("ghl-postgres-").tempdir_in("/tmp").unwrap();
    give_away(folder.path());
    folder
}

fn as_server(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new(program);
    if let Some((user, group)) = identity() {
        command.uid(user).gid(group);
    }
    command.current_dir("/").stdin(Stdio::null());
    command
}

fn succeed(command: &mut Command) -> Output {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    output
}

/// A free port outside the system's ephemeral range: an outgoing connection of another test could
/// otherwise take the port before the program listens on it.
pub fn free_port() -> u16 {
    use std::hash::{BuildHasher, RandomState};
    loop {
        let port = 10_000 + (RandomState::new().hash_one(0) % 20_000) as u16;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

pub fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < PATIENCE, "still waiting until {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// A program that ends when this process ends for any reason: a shell in between waits for the end
/// of its input, and removes the folder if no other process does.
struct ChildGuard(Child);

impl ChildGuard {
    /// `inside` is the prefix of the command, such as `ip netns exec one`.
    /// `end` is the signal that stops the program at once.
    fn start(
        inside: &[String],
        program: &Path,
        arguments: &[String],
        log: &Path,
        end: &str,
    ) -> ChildGuard {
        let watch = r#""$@" >>"$LOG" 2>&1 </dev/null & program=$!; cat >/dev/null
            while kill -$END $program 2>/dev/null; do sleep 0.05; done
            sleep 0.2; [ -d /proc/$TESTS ] || rm -rf "$(dirname "$LOG")""#;
        let mut shell = if inside.is_empty() { as_server("sh") } else { Command::new(&inside[0]) };
        if let Some((_, rest)) = inside.split_first() {
            shell.args(rest);
            if let Some((user, group)) = identity() {
                shell.args([
                    "setpriv",
                    &format!("--reuid={user}"),
                    &format!("--regid={group}"),
                    "--clear-groups",
                ]);
            }
            shell.arg("sh").current_dir("/");
        }
        shell
            .args(["-c", watch, "sh"])
            .arg(program)
            .args(arguments)
            .env("LOG", log)
            .env("END", end)
            .env("TESTS", std::process::id().to_string());
        ChildGuard(
            shell
                .stdin(Stdio::piped())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap(),
        )
    }
}

impl Drop for ChildGuard {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

// ---- A server -----------------------------------------------------------------------------------

pub struct Server {
    process: Option<ChildGuard>,
    inside: Vec<String>,
    options: Vec<String>,
    /// The address of the server.
    pub host: String,
    pub port: u16,
    folder: TempDir,
}

impl Server {
    /// A separate server with additional options.
    pub fn start(options: &[&str]) -> Option<Server> {
        Server::start_inside(&[], "127.0.0.1", options)
    }

    /// A server that runs inside another command, at an address that is valid there.
    pub fn start_inside(inside: &[&str], host: &str, options: &[&str]) -> Option<Server> {
        let mut server = Server::prepare(inside, host, options)?;
        let password = server.path("password");
        fs::write(&password, ADMIN_PASSWORD).unwrap();
        give_away(&password);
        let locale: &[&str] = &["--locale=C.UTF-8", "--encoding=UTF8"];
        succeed(
            as_server(programs()?.join("initdb"))
                .args(["--username=postgres", "--auth=scram-sha-256", "--no-sync"])
                .args(locale)
                .arg(format!("--pwfile={}", password.display()))
                .arg(format!("--pgdata={}", server.path("data").display())),
        );
        let mut rules =
            fs::OpenOptions::new().append(true).open(server.path("data/pg_hba.conf")).unwrap();
        writeln!(
            rules,
            "host all all 0.0.0.0/0 scram-sha-256\nhost replication all 0.0.0.0/0 scram-sha-256"
        )
        .unwrap();
        server.begin();
        server.sql("postgres", &format!("CREATE ROLE {ROLE} LOGIN PASSWORD '{PASSWORD}'"));
        Some(server)
    }

    /// A read-only standby that follows another server until it is promoted.
    pub fn standby_of(primary: &Server) -> Server {
        let mut server = Server::prepare(&[], "127.0.0.1", &[]).unwrap();
        succeed(
            as_server(programs().unwrap().join("pg_basebackup"))
                .args([
                    "--write-recovery-conf",
                    "--checkpoint=fast",
                    "--no-sync",
                    "--username=postgres",
                ])
                .arg(format!("--pgdata={}", server.path("data").display()))
                .args(["--host=127.0.0.1".to_owned(), format!("--port={}", primary.port)])
                .env("PGPASSWORD", ADMIN_PASSWORD),
        );
        server.begin();
        server
    }

    fn prepare(inside: &[&str], host: &str, options: &[&str]) -> Option<Server> {
        programs()?;
        let texts =
            |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        let (host, port) = (host.to_owned(), free_port());
        Some(Server {
            process: None,
            inside: texts(inside),
            options: texts(options),
            host,
            port,
            folder: folder(),
        })
    }

    /// Starts or restarts it.
    pub fn begin(&mut self) {
        let mut arguments = vec!["-D".to_owned(), self.path("data").display().to_string()];
        let socket = format!("unix_socket_directories={}", self.folder.path().display());
        let (port, host) =
            (format!("port={}", self.port), format!("listen_addresses={}", self.host));
        for option in [port.as_str(), &host, &socket, "max_connections=300", "log_connections=off"]
        {
            arguments.extend(["-c".to_owned(), option.to_owned()]);
        }
        for option in &self.options {
            arguments.extend(["-c".to_owned(), option.clone()]);
        }
        let program = programs().unwrap().join("postgres");
        self.process =
            Some(ChildGuard::start(&self.inside, &program, &arguments, &self.path("log"), "INT"));
        wait_until("the server is up", || self.psql("postgres", "SELECT 1").status.success());
    }

    /// Stops it, which ends every session.
    pub fn stop(&mut self) {
        self.process = None;
    }

    /// Kills all of its processes and restarts it.
    pub fn crash(&mut self) {
        let file = fs::read_to_string(self.path("data/postmaster.pid")).unwrap();
        let first = file.lines().next().unwrap().to_owned();
        let children = succeed(Command::new("ps").args(["-o", "pid=", "--ppid", &first])).stdout;
        let mut all = vec![first];
        all.extend(String::from_utf8(children).unwrap().split_whitespace().map(str::to_owned));
        // A process that has already exited is no failure.
        Command::new("kill").arg("-9").args(&all).output().unwrap();
        self.process = None;
        let is_alive = |pid: &String| Path::new("/proc").join(pid).join("exe").read_link().is_ok();
        wait_until("all server processes have exited", || !all.iter().any(is_alive));
        self.begin();
    }

    /// Promotes a standby to primary.
    pub fn promote(&self) {
        self.sql("postgres", "SELECT pg_promote()");
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn socket_folder(&self) -> &Path {
        self.folder.path()
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    pub fn data(&self) -> PathBuf {
        self.path("data")
    }

    fn psql(&self, database: &str, sql: &str) -> Output {
        Command::new(programs().unwrap().join("psql"))
            .args([
                "--no-psqlrc",
                "--quiet",
                "--tuples-only",
                "--no-align",
                "--set=ON_ERROR_STOP=1",
            ])
            .args(["--username=postgres", "--dbname", database, "--command", sql])
            .arg(format!("--host={}", self.folder.path().display()))
            .arg(format!("--port={}", self.port))
            .env("PGPASSWORD", ADMIN_PASSWORD)
            .env("PGCONNECT_TIMEOUT", "5")
            .output()
            .unwrap()
    }

    /// Runs SQL as the administrator. Returns the output.
    pub fn sql(&self, database: &str, sql: &str) -> String {
        let output = self.psql(database, sql);
        assert!(output.status.success(), "{sql}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// A new database owned by the role.
    pub fn database(&self) -> Database<'_> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("test_{}", COUNT.fetch_add(1, Ordering::Relaxed));
        self.sql("postgres", &format!("CREATE DATABASE {name} OWNER {ROLE}"));
        Database { server: self, name }
    }

    /// Terminates every session except its own.
    pub fn end_sessions(&self) {
        self.sql(
            "postgres",
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
             WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'",
        );
    }
}

/// The server shared by the tests of a program; it ends with the program.
pub fn shared() -> Option<&'static Server> {
    static SHARED: OnceLock<Option<Server>> = OnceLock::new();
    SHARED.get_or_init(|| Server::start(&[])).as_ref()
}

pub struct Database<'a> {
    pub server: &'a Server,
    pub name: String,
}

impl Database<'_> {
    pub fn url(&self) -> String {
        self.url_at(&format!("{}:{}", self.server.host, self.server.port))
    }

    /// Its URL with other hosts.
    pub fn url_at(&self, hosts: &str) -> String {
        format!("postgres://{ROLE}:{ENCODED_PASSWORD}@{hosts}/{}", self.name)
    }

    pub fn sql(&self, sql: &str) -> String {
        self.server.sql(&self.name, sql)
    }
}

/// A session of the administrator that keeps its locks until it is dropped.
pub struct Session(Child);

impl Database<'_> {
    /// Opens a session that has run this SQL.
    pub fn session(&self, sql: &str) -> Session {
        let mut child = Command::new(programs().unwrap().join("psql"))
            .args([
                "--no-psqlrc",
                "--quiet",
                "--tuples-only",
                "--no-align",
                "--set=ON_ERROR_STOP=1",
            ])
            .args(["--username=postgres", "--dbname", &self.name])
            .arg(format!("--host={}", self.server.folder.path().display()))
            .arg(format!("--port={}", self.server.port))
            .env("PGPASSWORD", ADMIN_PASSWORD)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        writeln!(child.stdin.as_mut().unwrap(), "{sql}\n\\echo ready").unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert!(lines.any(|line| line.unwrap() == "ready"), "{sql}");
        Session(child)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

// ---- A pooler -----------------------------------------------------------------------------------

/// PgBouncer in transaction mode in front of a server.
pub struct Pooler {
    _process: ChildGuard,
    pub port: u16,
    folder: TempDir,
}

impl Pooler {
    /// Starts a pooler with this number of connections to each database.
    pub fn start(server: &Server, size: u32) -> Option<Pooler> {
        let program = pooler_program()?;
        let (folder, port) = (folder(), free_port());
        let path = |name: &str| folder.path().join(name).display().to_string();
        let write = |name: &str, text: &str| {
            fs::write(folder.path().join(name), text).unwrap();
            give_away(&folder.path().join(name));
        };
        write("users", &format!("\"{ROLE}\" \"{PASSWORD}\"\n"));
        write(
            "ini",
            &format!(
                "[databases]\n* = host={} port={}\n[pgbouncer]\n\
                 pool_mode = transaction\nlisten_addr = 127.0.0.1\n\
                 listen_port = {port}\nunix_socket_dir =\nauth_type = scram-sha-256\n\
                 auth_file = {}\n\
                 default_pool_size = {size}\nmax_client_conn = 500\n",
                server.host,
                server.port,
                path("users"),
            ),
        );
        let arguments = [path("ini")];
        let process =
            ChildGuard::start(&[], &program, &arguments, &folder.path().join("log"), "TERM");
        wait_until("the pooler listens", || TcpStream::connect(("127.0.0.1", port)).is_ok());
        Some(Pooler { _process: process, port, folder })
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }
}

// ---- A relay ------------------------------------------------------------------------------------

/// Forwards the traffic of a server until it is told to interfere.
pub struct Relay {
    pub port: u16,
    manner: Arc<Manner>,
}

#[derive(Default)]
struct Manner {
    /// The number of responses still to be dropped.
    cuts: AtomicU32,
    is_silent: AtomicBool,
    /// The number of requests received while silent.
    asked: AtomicU32,
}

impl Relay {
    pub fn to(server: &Server) -> Relay {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        Relay { port, manner: serve(listener, server.port) }
    }

    /// Forwards connections from `listener` to a local port.
    pub fn serve(listener: TcpListener, port: u16) {
        serve(listener, port);
    }

    /// Drops the next `count` responses and closes their connections.
    pub fn swallow_answers(&self, count: u32) {
        self.manner.cuts.store(count, Ordering::SeqCst);
    }

    /// The number of responses still to be dropped.
    pub fn left(&self) -> u32 {
        self.manner.cuts.load(Ordering::SeqCst)
    }

    /// From now on nothing is forwarded, and connections stay open.
    pub fn fall_silent(&self) {
        self.manner.is_silent.store(true, Ordering::SeqCst);
    }

    /// Waits until a request was not forwarded.
    pub fn wait_until_asked(&self) {
        self.wait_until_asked_times(1);
    }

    /// Waits until `count` requests were not forwarded.
    pub fn wait_until_asked_times(&self, count: u32) {
        wait_until("a request arrives", || self.manner.asked.load(Ordering::SeqCst) >= count);
    }

    /// Resumes forwarding. Earlier bytes are lost.
    pub fn speak_again(&self) {
        self.manner.is_silent.store(false, Ordering::SeqCst);
        self.manner.asked.store(0, Ordering::SeqCst);
    }
}

fn serve(listener: TcpListener, port: u16) -> Arc<Manner> {
    let manner = Arc::new(Manner::default());
    let of_all = Arc::clone(&manner);
    thread::spawn(move || {
        for client in listener.incoming() {
            let client = client.unwrap();
            let Ok(server) = TcpStream::connect(("127.0.0.1", port)) else { continue };
            let (to_server, from_client) =
                (server.try_clone().unwrap(), client.try_clone().unwrap());
            let (there, back) = (Arc::clone(&of_all), Arc::clone(&of_all));
            thread::spawn(move || pass_on(from_client, to_server, &there, false));
            thread::spawn(move || pass_on(server, client, &back, true));
        }
    });
    manner
}

fn pass_on(mut from: TcpStream, mut to: TcpStream, manner: &Manner, is_answer: bool) {
    let mut buffer = [0; 1 << 14];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        if manner.is_silent.load(Ordering::SeqCst) {
            manner.asked.fetch_add(1, Ordering::SeqCst);
            continue;
        }
        let one_less = |cuts: u32| cuts.checked_sub(1);
        let cut = is_answer
            && manner.cuts.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_less).is_ok();
        if cut || to.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}
