//! The cost of a request for a live token through the C ABI: `cargo bench --bench hot_path`.
//! Medians of repeated runs by thread CPU time, which other programs affect less. In brackets the
//! ratio to the minimum, a plain copy of the token into a buffer.
//!
//! Two threads are also measured by wall time, because blocking uses no CPU time. On a machine with
//! fewer cores than threads (callers, refresher, emulator) only the CPU time is meaningful.

mod stage;

use std::ffi::{CStr, CString, c_char};
use std::hint::black_box;
use std::path::Path;
use std::ptr::null_mut;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use ghl_oauth::config::StoreKind;
use ghl_oauth::internals::ffi::{
    client_from, ghl_access_token, ghl_access_token_into, ghl_client, ghl_client_free,
    ghl_string_free, ghl_token_refresh,
};
use ghl_oauth::internals::tokens::ImportParams;
use ghl_oauth::internals::{Client, Config};
use ghl_oauth_emulator::{Decision, Emulator, Options};
use rustix::time::{ClockId, clock_gettime};
use serde_json::json;

const CALLS: u32 = 100_000;
const RUNS: usize = 11;
const TOKEN: [u8; 900] = [b't'; 900];
/// The number of locations that are refreshed concurrently.
const REFRESHED: usize = 8;

#[derive(Clone, Copy)]
struct Handle(*mut ghl_client);

// SAFETY: a client may be used from any thread.
unsafe impl Send for Handle {}
// SAFETY: as above.
unsafe impl Sync for Handle {}

type Ask = fn(Handle, &CStr);

const WAYS: [(&str, Ask); 2] = [("into", into), ("owned", owned)];

fn main() {
    let floor = median(|| per_call(&mut || copy(&TOKEN)));
    println!(
        "floor: {} bytes copied, {floor:.1} ns; the clock that a token's end is held against, \
         {:.1} ns; {} cores",
        TOKEN.len(),
        median(|| per_call(&mut || _ = black_box(clock_gettime(ClockId::Boottime)))),
        std::thread::available_parallelism().map_or(0, usize::from)
    );
    for held in [1, 1_000, 100_000] {
        let client = client_with(held);
        let id = id(held / 2);
        row(&format!("{held} held"), |ask| {
            let took = median(|| per_call(&mut || ask(client, &id)));
            format!("{took:5.0} ns ({:.1})", took / floor)
        });
        if held == 100_000 {
            each_for_another(client, held, "the same, each call for another");
        }
        if held == 1_000 {
            two_threads(client);
        }
        free(client);
    }
    let folder = tempfile::tempdir().unwrap();
    let (client, held) = (client_with_database(&folder.path().join("tokens.db")), 100_000);
    each_for_another(client, held, "from SQLite, each call for another");
    free(client);
    while_others_are_refreshed();
}

fn each_for_another(client: Handle, held: usize, what: &str) {
    let order = || (0..held).map(|index| index * 7919 % held);
    let ids: Vec<CString> = order().map(self::id).collect();
    // A token is cached at its first call: in another order than the one of the measured calls.
    (0..held).for_each(|index| into(client, &self::id(index)));
    let tokens = vec![TOKEN; held];
    let mut next = order().cycle();
    let floor = median(|| per_call(&mut || copy(&tokens[next.next().unwrap()])));
    println!("floor: each copied from another place, {floor:.0} ns");
    row(what, |ask| {
        let mut next = ids.iter().cycle();
        let took = median(|| per_call(&mut || ask(client, next.next().unwrap())));
        format!("{took:5.0} ns ({:.1})", took / floor)
    });
}

fn two_threads(client: Handle) {
    for (what, ids) in PAIRS {
        row(&format!("two threads, {what}"), |ask| {
            let ids = ids.map(id);
            // Interleaved, so that other programs affect both alike.
            let runs: Vec<[f64; 2]> = (0..RUNS)
                .map(|_| {
                    let (one, two) =
                        (together(client, &ids[..1], ask), together(client, &ids, ask));
                    [2.0 * one.wall / two.wall, 2.0 * one.processor / two.processor]
                })
                .collect();
            let [wall, processor] =
                [0, 1].map(|which| middle(runs.iter().map(|run| run[which]).collect()));
            format!("{wall:.2} × one ({processor:.2} by processor time)")
        });
    }
}

const PAIRS: [(&str, [usize; 2]); 2] = [("one resource each", [3, 500]), ("one resource", [3, 3])];

/// One thread keeps refreshing a few locations of the emulator while others request other tokens.
fn while_others_are_refreshed() {
    let options = Options { locations: REFRESHED, rate_limit: None, ..Options::default() };
    let emulator = Emulator::start(options).unwrap();
    let mut config = stage::configuration(&emulator, json!({"kind": "memory"}));
    config["rateLimit"] = json!({"requests": 1_000_000, "perMs": 10_000, "perDay": 1_000_000_000});
    let core = Client::new(&Config::from_json(&config.to_string()).unwrap()).unwrap();
    import(&core, 1_000);
    let refreshed = emulator.location_ids();
    for location_id in &refreshed {
        stage::connect(&core, &emulator, Decision::Location(location_id.into()));
    }
    let client = Handle(client_from(core));
    let (over, refreshes) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for location_id in
                refreshed.iter().cycle().take_while(|_| !over.load(Ordering::Relaxed))
            {
                refresh(client, &CString::new(location_id.as_str()).unwrap());
                refreshes.fetch_add(1, Ordering::Relaxed);
            }
        });
        let began = (Instant::now(), refreshes.load(Ordering::Relaxed));
        let callers: [(&str, &[usize]); 3] = [
            ("one caller", &[3]),
            ("two, one resource each", &[3, 500]),
            ("two, one resource", &[3, 3]),
        ];
        for (what, ids) in callers {
            let ids: Vec<CString> = ids.iter().copied().map(id).collect();
            row(&format!("while {REFRESHED} others are refreshed: {what}"), |ask| {
                let took = median(|| together(client, &ids, ask).processor);
                format!("{took:5.0} ns of processor time")
            });
        }
        let many = refreshes.load(Ordering::Relaxed) - began.1;
        println!(
            "refreshes meanwhile: {:.0} per second",
            many as f64 / began.0.elapsed().as_secs_f64()
        );
        over.store(true, Ordering::Relaxed);
    });
    free(client);
}

fn row(what: &str, measure: impl Fn(Ask) -> String) {
    let columns = WAYS.map(|(name, ask)| format!("{name} {}", measure(ask)));
    println!("{what}: {}", columns.join(", "));
}

/// Nanoseconds of CPU time.
fn per_call(call: &mut dyn FnMut()) -> f64 {
    let began = processor_time();
    for _ in 0..CALLS {
        call();
    }
    (processor_time() - began).as_nanos() as f64 / f64::from(CALLS)
}

/// Nanoseconds per call of one thread: wall time until the last thread is done, and CPU time of the
/// slowest thread.
struct Took {
    wall: f64,
    processor: f64,
}

/// One thread per ID; all start at once.
fn together(client: Handle, ids: &[CString], ask: Ask) -> Took {
    let start = Barrier::new(ids.len() + 1);
    let (began, processor) = std::thread::scope(|scope| {
        let callers: Vec<_> = ids
            .iter()
            .map(|id| {
                let start = &start;
                scope.spawn(move || {
                    ask(client, id);
                    start.wait();
                    per_call(&mut || ask(client, id))
                })
            })
            .collect();
        start.wait();
        let began = Instant::now();
        (began, callers.into_iter().map(|caller| caller.join().unwrap()).fold(0.0, f64::max))
    });
    Took { wall: began.elapsed().as_nanos() as f64 / f64::from(CALLS), processor }
}

fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap())
}

fn median(mut run: impl FnMut() -> f64) -> f64 {
    middle((0..RUNS).map(|_| run()).collect())
}

fn middle(mut runs: Vec<f64>) -> f64 {
    runs.sort_by(f64::total_cmp);
    runs[runs.len() / 2]
}

fn copy(token: &[u8]) {
    let mut buffer = [0_u8; 1024];
    buffer[..token.len()].copy_from_slice(black_box(token));
    black_box(&mut buffer);
}

fn into(client: Handle, id: &CStr) {
    let mut buffer = std::mem::MaybeUninit::<[c_char; 1024]>::uninit();
    let mut length = 1024;
    // SAFETY: a valid client, a NUL-terminated ID, and a buffer of the given length.
    let status = unsafe {
        ghl_access_token_into(
            client.0,
            id.as_ptr(),
            buffer.as_mut_ptr().cast(),
            &mut length,
            null_mut(),
        )
    };
    black_box(&mut buffer);
    assert_eq!((status, length), (0, TOKEN.len() + 1));
}

fn owned(client: Handle, id: &CStr) {
    let mut token: *mut c_char = null_mut();
    // SAFETY: a valid client and a NUL-terminated ID; the token is freed once.
    unsafe {
        assert_eq!(ghl_access_token(client.0, id.as_ptr(), &mut token, null_mut()), 0);
        ghl_string_free(black_box(token));
    }
}

fn refresh(client: Handle, id: &CStr) {
    let mut metadata: *mut c_char = null_mut();
    // SAFETY: a valid client and a NUL-terminated ID; the metadata is freed once.
    unsafe {
        assert_eq!(ghl_token_refresh(client.0, id.as_ptr(), &mut metadata), 0);
        ghl_string_free(metadata);
    }
}

fn free(client: Handle) {
    // SAFETY: created by `client_from`, freed once.
    unsafe { ghl_client_free(client.0) };
}

fn client_with(held: usize) -> Handle {
    let client = Client::new(&Config::new("app-1", "secret")).unwrap();
    import(&client, held);
    Handle(client_from(client))
}

fn client_with_database(path: &Path) -> Handle {
    let mut config = Config::new("app-1", "secret");
    config.store.kind = StoreKind::Sqlite;
    config.store.path = Some(path.to_owned());
    let client = Client::new(&config).unwrap();
    import(&client, 100_000);
    Handle(client_from(client))
}

fn import(client: &Client, held: usize) {
    let token = str::from_utf8(&TOKEN).unwrap();
    let tokens = (0..held)
        .map(|index| {
            json!({
                "accessToken": token, "locationId": resource_id(index), "expiresIn": 86_399,
            })
        })
        .map(|token| token.as_object().unwrap().clone())
        .collect();
    client.tokens_import(ImportParams { tokens, ..ImportParams::default() }).unwrap();
}

fn resource_id(index: usize) -> String {
    format!("location{index:012}")
}

fn id(index: usize) -> CString {
    CString::new(resource_id(index)).unwrap()
}
