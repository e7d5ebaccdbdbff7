//! A browser, operated by WebDriver: as much of it as the tests of the pages need.

use serde_json::{Value, json};
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, Once, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// How long anything may take before a test gives up. Nothing takes nearly that long.
const PATIENCE: Duration = Duration::from_secs(30);

/// How WebDriver names a reference to an element.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// Keys, as WebDriver writes them.
pub const TAB: &str = "\u{e004}";
pub const ENTER: &str = "\u{e007}";

/// One browser at a time: each has half a dozen processes.
static TURN: Mutex<()> = Mutex::new(());

static SAID: Once = Once::new();

/// A Chromium without a window, with a profile of its own. Dropping it ends both.
pub struct Browser {
    driver: Child,
    agent: ureq::Agent,
    session: String,
    profile: PathBuf,
    _turn: MutexGuard<'static, ()>,
}

impl Browser {
    /// Starts one. `None`: there is no Chromium here, or no driver; that was said.
    pub fn start() -> Option<Self> {
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let found = |name: &str| Command::new(name).arg("--version").output().is_ok();
        if !found("chromium") || !found("chromedriver") {
            SAID.call_once(|| {
                println!("left out: the pages in a browser (apt-get install chromium chromium-driver)");
            });
            return None;
        }
        let profile = std::env::temp_dir().join(format!("ghl-oauth-emulator-browser-{}", std::process::id()));
        std::fs::create_dir(&profile).unwrap();
        let mut driver = Command::new("chromedriver")
            .arg("--port=0")
            // What the browser leaves behind goes with its profile.
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
            .expect("chromedriver says where it listens");
        // It goes on talking, and must not be held up.
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
        let mut browser =
            Self { driver, agent, session: format!("http://127.0.0.1:{port}/session"), profile, _turn: turn };
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
        let request = self.agent.post(format!("{}{path}", self.session)).content_type("application/json");
        let mut answer = request.send(body.to_string()).map_err(|error| error.to_string())?;
        let good = answer.status().is_success();
        let text = answer.body_mut().with_config().limit(1 << 26).read_to_string().unwrap();
        let answer: Value = serde_json::from_str(&text).map_err(|error| format!("{error}: {text}"))?;
        if good { Ok(answer["value"].clone()) } else { Err(answer["value"]["message"].to_string()) }
    }

    /// Goes to a page, and waits until it is loaded.
    #[track_caller]
    pub fn go(&self, url: &str) {
        self.post("/url", &json!({ "url": url }));
    }

    /// Runs a script in the page; what it returns.
    #[track_caller]
    pub fn run(&self, script: &str) -> Value {
        self.post("/execute/sync", &json!({"script": script, "args": []}))
    }

    /// Runs a script that ends when it calls its first argument.
    #[track_caller]
    pub fn run_async(&self, script: &str) -> Value {
        self.post("/execute/async", &json!({"script": script, "args": []}))
    }

    /// A command to Chromium itself.
    #[track_caller]
    pub fn devtools(&self, command: &str, params: Value) -> Value {
        self.post("/goog/cdp/execute", &json!({"cmd": command, "params": params}))
    }

    /// The element of an XPath, as soon as there is one.
    #[track_caller]
    fn element(&self, xpath: &str) -> String {
        let body = json!({"using": "xpath", "value": xpath});
        until(xpath, || {
            self.try_post("/element", &body).ok().and_then(|found| found[ELEMENT].as_str().map(str::to_owned))
        })
    }

    /// Clicks where the element is, as a person would.
    #[track_caller]
    pub fn click(&self, xpath: &str) {
        let element = self.element(xpath);
        // Not at the edge, where the status covers it.
        let script = "arguments[0].scrollIntoView({block: 'center'})";
        self.post("/execute/sync", &json!({"script": script, "args": [{ELEMENT: element}]}));
        self.post(&format!("/element/{element}/click"), &json!({}));
    }

    /// Types into a field, or picks from a list, in place of what it says.
    #[track_caller]
    pub fn fill(&self, xpath: &str, text: &str) {
        let element = self.element(xpath);
        if !xpath.starts_with("//select") {
            self.post(&format!("/element/{element}/clear"), &json!({}));
        }
        self.post(&format!("/element/{element}/value"), &json!({ "text": text }));
    }

    /// Presses keys one after the other, wherever the focus is.
    #[track_caller]
    pub fn press(&self, keys: &str) {
        let strokes: Vec<_> = keys
            .chars()
            .flat_map(|key| {
                [json!({"type": "keyDown", "value": key}), json!({"type": "keyUp", "value": key})]
            })
            .collect();
        self.post("/actions", &json!({"actions": [{"type": "key", "id": "keys", "actions": strokes}]}));
    }

    /// Presses Tab until the element that has the focus is one whose text or label begins like this.
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
        panic!("Tab never comes to {name}, only to {passed:#?}");
    }

    /// Waits until the page says this somewhere.
    #[track_caller]
    pub fn wait_for(&self, what: &str, script: &str) {
        until(what, || (self.run(script) == true).then_some(()));
    }

    /// What the browser complained about since the last look.
    #[track_caller]
    pub fn complaints(&self) -> Vec<String> {
        let log = self.post("/se/log", &json!({"type": "browser"}));
        log.as_array().unwrap().iter().map(ToString::to_string).collect()
    }

    /// Shows pages as to a person who prefers `dark`, or `light`.
    pub fn prefer(&self, scheme: &str) {
        let features = json!([{"name": "prefers-color-scheme", "value": scheme}]);
        self.devtools("Emulation.setEmulatedMedia", json!({ "features": features }));
    }

    /// Makes the page as large as this, in CSS pixels.
    pub fn size(&self, width: u32, height: u32) {
        self.devtools(
            "Emulation.setDeviceMetricsOverride",
            json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false}),
        );
    }

    /// What is to be seen, as a small PNG in Base64. The browser then shows nothing.
    pub fn screenshot(&self) -> String {
        let taken =
            self.devtools("Page.captureScreenshot", json!({"format": "png", "optimizeForSpeed": false}));
        self.go("about:blank");
        let script = include_str!("palette.js");
        let small = self.post("/execute/async", &json!({"script": script, "args": [taken["data"]]}));
        small.as_str().unwrap().to_owned()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Ends the browser; killing the driver alone would leave it behind.
        let _ = self.agent.delete(&self.session).call();
        let _ = self.driver.kill();
        let _ = self.driver.wait();
        let _ = std::fs::remove_dir_all(&self.profile);
    }
}

/// Asks until there is an answer.
#[track_caller]
pub fn until<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(start.elapsed() < PATIENCE, "waited in vain for {what}");
        thread::yield_now();
    }
}
