//! A minimal WebDriver client for the tests of the pages.

use serde_json::{Value, json};
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, Once, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// The limit for every wait of a test. No operation takes nearly that long.
const PATIENCE: Duration = Duration::from_secs(30);

/// The WebDriver key of an element reference.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// Keys in WebDriver notation.
pub const TAB: &str = "\u{e004}";
pub const ENTER: &str = "\u{e007}";

/// One browser at a time, because each has half a dozen processes.
static TURN: Mutex<()> = Mutex::new(());

static SAID: Once = Once::new();

/// A headless Chromium with its own profile. Dropping it ends both.
pub struct Browser {
    driver: Child,
    agent: ureq::Agent,
    session: String,
    profile: PathBuf,
    _turn: MutexGuard<'static, ()>,
}

impl Browser {
    /// Starts a browser. `None`, with a printed note, if Chromium or its driver is missing.
    pub fn start() -> Option<Self> {
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let found = |name: &str| Command::new(name).arg("--version").output().is_ok();
        if !found("chromium") || !found("chromedriver") {
            SAID.call_once(|| {
                println!(
                    "skipped: the pages in a browser (apt-get install chromium chromium-driver)"
                );
            });
            return None;
        }
        let profile =
            std::env::temp_dir().join(format!("ghl-oauth-emulator-browser-{}", std::process::id()));
        std::fs::create_dir(&profile).unwrap();
        let mut driver = Command::new("chromedriver")
            .arg("--port=0")
            // Temporary files are removed with the profile.
            .env("TMPDIR", &profile)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(driver.stdout.take().unwrap()).lines().map(Result::unwrap);
        let port = lines
            .find_map(|line| {
                line.split_once("started successfully on port ")
                    .map(|(_, port)| port.trim_end_matches('.').to_owned())
            })
            .expect("chromedriver prints its port");
        // Keeps reading the output so that the driver never blocks.
        thread::spawn(move || lines.for_each(drop));
        let agent: ureq::Agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .proxy(None)
            .timeout_global(Some(PATIENCE))
            .build()
            .into();
        let arguments = [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--disable-dev-shm-usage",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--hide-scrollbars",
            "--disable-lcd-text",
            "--no-proxy-server",
            "--window-size=1280,900",
            &format!("--user-data-dir={}", profile.display()),
        ];
        let mut browser = Self {
            driver,
            agent,
            session: format!("http://127.0.0.1:{port}/session"),
            profile,
            _turn: turn,
        };
        let session = browser.post(
            "",
            &json!({"capabilities": {"alwaysMatch": {
                "browserName": "chrome",
                "goog:chromeOptions": {"args": arguments},
                "goog:loggingPrefs": {"browser": "ALL"},
            }}}),
        );
        browser.session = format!("{}/{}", browser.session, session["sessionId"].as_str().unwrap());
        Some(browser)
    }

    #[track_caller]
    fn post(&self, path: &str, body: &Value) -> Value {
        match self.try_post(path, body) {
            Ok(value) => value,
            Err(complaint) => panic!("{path}: {complaint}"),
        }
    }

    fn try_post(&self, path: &str, body: &Value) -> Result<Value, String> {
        let request =
            self.agent.post(format!("{}{path}", self.session)).content_type("application/json");
        let mut answer = request.send(body.to_string()).map_err(|error| error.to_string())?;
        let good = answer.status().is_success();
        let text = answer.body_mut().with_config().limit(1 << 26).read_to_string().unwrap();
        let answer: Value =
            serde_json::from_str(&text).map_err(|error| format!("{error}: {text}"))?;
        if good { Ok(answer["value"].clone()) } else { Err(answer["value"]["message"].to_string()) }
    }

    /// Opens a page and waits until it is loaded.
    #[track_caller]
    pub fn go(&self, url: &str) {
        self.post("/url", &json!({ "url": url }));
    }

    /// Runs a script in the page and returns its result.
    #[track_caller]
    pub fn run(&self, script: &str) -> Value {
        self.post("/execute/sync", &json!({"script": script, "args": []}))
    }

    /// Runs a script that ends when it calls its first argument.
    #[track_caller]
    pub fn run_async(&self, script: &str) -> Value {
        self.post("/execute/async", &json!({"script": script, "args": []}))
    }

    /// Sends a DevTools command to Chromium.
    #[track_caller]
    pub fn devtools(&self, command: &str, params: Value) -> Value {
        self.post("/goog/cdp/execute", &json!({"cmd": command, "params": params}))
    }

    /// Waits for the element of an XPath.
    #[track_caller]
    fn element(&self, xpath: &str) -> String {
        let body = json!({"using": "xpath", "value": xpath});
        until(xpath, || {
            self.try_post("/element", &body)
                .ok()
                .and_then(|found| found[ELEMENT].as_str().map(str::to_owned))
        })
    }

    /// Clicks at the position of the element, like a person.
    #[track_caller]
    pub fn click(&self, xpath: &str) {
        let element = self.element(xpath);
        // At the edge, the status bar would cover it.
        let script = "arguments[0].scrollIntoView({block: 'center'})";
        self.post("/execute/sync", &json!({"script": script, "args": [{ELEMENT: element}]}));
        self.post(&format!("/element/{element}/click"), &json!({}));
    }

    /// Replaces the text of a field, or selects from a list.
    #[track_caller]
    pub fn fill(&self, xpath: &str, text: &str) {
        let element = self.element(xpath);
        if !xpath.starts_with("//select") {
            self.post(&format!("/element/{element}/clear"), &json!({}));
        }
        self.post(&format!("/element/{element}/value"), &json!({ "text": text }));
    }

    /// Presses keys one after the other at the current focus.
    #[track_caller]
    pub fn press(&self, keys: &str) {
        let strokes: Vec<_> = keys
            .chars()
            .flat_map(|key| {
                [json!({"type": "keyDown", "value": key}), json!({"type": "keyUp", "value": key})]
            })
            .collect();
        self.post(
            "/actions",
            &json!({"actions": [{"type": "key", "id": "keys", "actions": strokes}]}),
        );
    }

    /// Presses Tab until the focused element has a text or label with this prefix.
    #[track_caller]
    pub fn tab_to(&self, name: &str) {
        const FOCUSED: &str = "const it = document.activeElement;\
            return (it.labels && it.labels[0] || it).textContent.trim()";
        let mut passed = Vec::new();
        for _ in 0..200 {
            self.press(TAB);
            let focused = self.run(FOCUSED).as_str().unwrap_or_default().to_owned();
            if focused.starts_with(name) {
                return;
            }
            passed.push(focused);
        }
        panic!("Tab never reaches {name}, only {passed:#?}");
    }

    /// Waits until the script returns true.
    #[track_caller]
    pub fn wait_for(&self, what: &str, script: &str) {
        until(what, || (self.run(script) == true).then_some(()));
    }

    /// The errors in the browser's console since the last call.
    #[track_caller]
    pub fn complaints(&self) -> Vec<String> {
        let log = self.post("/se/log", &json!({"type": "browser"}));
        log.as_array().unwrap().iter().map(ToString::to_string).collect()
    }

    /// Emulates the colour scheme preference `dark` or `light`.
    pub fn prefer(&self, scheme: &str) {
        let features = json!([{"name": "prefers-color-scheme", "value": scheme}]);
        self.devtools("Emulation.setEmulatedMedia", json!({ "features": features }));
    }

    /// Sets the size of the page in CSS pixels.
    pub fn size(&self, width: u32, height: u32) {
        self.devtools(
            "Emulation.setDeviceMetricsOverride",
            json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false}),
        );
    }

    /// A screenshot as a small PNG in Base64. Afterwards the browser shows a blank page.
    pub fn screenshot(&self) -> String {
        let taken = self.devtools(
            "Page.captureScreenshot",
            json!({"format": "png", "optimizeForSpeed": false}),
        );
        self.go("about:blank");
        let script = include_str!("palette.js");
        let small =
            self.post("/execute/async", &json!({"script": script, "args": [taken["data"]]}));
        small.as_str().unwrap().to_owned()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Ends the browser; killing only the driver would leave it running.
        let _ = self.agent.delete(&self.session).call();
        let _ = self.driver.kill();
        let _ = self.driver.wait();
        let _ = std::fs::remove_dir_all(&self.profile);
    }
}

/// Polls until there is a result.
#[track_caller]
pub fn until<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(start.elapsed() < PATIENCE, "timed out waiting for {what}");
        thread::yield_now();
    }
}
