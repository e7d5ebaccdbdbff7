//! The crate ghl-sdk, measured by `compare.py`: `ghl-sdk-peer QUESTION TASK`.
//!
//! It returns no token, so each result is taken from a request to the API.

use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, UNIX_EPOCH};
use std::{env, fs, thread};

use ghl_sdk::{
    Auth, Error, Ghl, MemoryTokenStore, OAuthConfig, Result, TokenSet, TokenStore, UserType,
};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};

/// A custom store as its documentation requests: durable before `save` returns.
struct File(PathBuf);

#[async_trait::async_trait]
impl TokenStore for File {
    async fn load(&self) -> Result<Option<TokenSet>> {
        let text = fs::read_to_string(&self.0).map_err(failed)?;
        Ok(serde_json::from_str(&text).ok().as_ref().map(token_set))
    }

    async fn save(&self, tokens: TokenSet) -> Result<()> {
        let expires_at = tokens.expires_at().duration_since(UNIX_EPOCH).unwrap_or_default();
        let text = json!({
            "accessToken": tokens.access_token(), "refreshToken": tokens.refresh_token(),
            "expiresAt": expires_at.as_millis() as u64,
        });
        let temporary = self.0.with_extension(std::process::id().to_string());
        let mut file = fs::File::create(&temporary).map_err(failed)?;
        file.write_all(text.to_string().as_bytes())
            .and_then(|()| file.sync_all())
            .map_err(failed)?;
        fs::rename(&temporary, &self.0).map_err(failed)
    }
}

fn failed(error: std::io::Error) -> Error {
    Error::Auth(error.to_string())
}

fn token_set(token: &Value) -> TokenSet {
    let expires_at = UNIX_EPOCH + Duration::from_millis(token["expiresAt"].as_u64().unwrap());
    TokenSet::new(text(token, "accessToken"), text(token, "refreshToken"), expires_at)
}

fn text<'a>(object: &'a Value, name: &str) -> &'a str {
    object[name].as_str().unwrap()
}

fn client(task: &Value, store: Arc<dyn TokenStore>) -> Ghl {
    let config =
        OAuthConfig::new(text(task, "clientId"), text(task, "clientSecret"), UserType::Company);
    Ghl::builder().base_url(text(task, "baseUrl")).auth(Auth::oauth(config, store)).build().unwrap()
}

async fn call(client: &Ghl, task: &Value) -> Result<Value> {
    let query =
        [("companyId", text(task, "companyId")), ("appId", text(task, "appId")), ("pageSize", "1")];
    client.get_raw("/oauth/installed-locations", &query).await
}

#[tokio::main]
async fn main() {
    let task: Value = serde_json::from_str(&env::args().nth(2).unwrap()).unwrap();
    let store = PathBuf::from(task["store"].as_str().unwrap_or_default());
    match env::args().nth(1).unwrap().as_str() {
        "ask" => ask(client(&task, Arc::new(File(store))), task).await,
        "refresh" => refresh(&task, store).await,
        "mint" => mint(&task).await,
        "start" => {
            let file = Arc::new(File(store));
            let _client = client(&task, file.clone());
            println!("{}", file.load().await.unwrap().unwrap().access_token());
        }
        question => panic!("{question}"),
    }
}

/// Starts concurrent callers for each line of the input.
async fn ask(client: Ghl, task: Value) {
    println!("ready");
    let task = Arc::new(task);
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while lines.next_line().await.unwrap().is_some() {
        let began = Instant::now();
        let callers: Vec<_> = (0..task["callers"].as_u64().unwrap())
            .map(|_| {
                let (client, task) = (client.clone(), task.clone());
                tokio::spawn(async move { call(&client, &task).await.is_ok() })
            })
            .collect();
        let mut passed = 0;
        for caller in callers {
            passed += usize::from(caller.await.unwrap());
        }
        println!("{}", json!({"passed": passed, "ms": began.elapsed().as_secs_f64() * 1e3}));
    }
}

/// A call with an expired token minus a call with a live one: the emulator decides whether tokens
/// are short-lived.
async fn refresh(task: &Value, path: PathBuf) {
    let store: Arc<dyn TokenStore> = if task["store"].is_null() {
        Arc::new(MemoryTokenStore::default())
    } else {
        Arc::new(File(path))
    };
    store.save(token_set(&task["token"])).await.unwrap();
    let client = client(task, store);
    let mut times = Vec::new();
    for _ in 0..task["calls"].as_u64().unwrap() {
        let began = Instant::now();
        call(&client, task).await.unwrap();
        times.push(began.elapsed());
    }
    times.sort();
    println!("{}", json!({"us": times[times.len() / 2].as_secs_f64() * 1e6}));
}

/// One location after the other.
async fn mint(task: &Value) {
    let client = client(task, Arc::new(MemoryTokenStore::new(token_set(&task["token"]))));
    let pause = Duration::from_millis(task["windowMs"].as_u64().unwrap());
    let (mut minted, mut refused) = (0, 0);
    let began = Instant::now();
    for location in task["locations"].as_array().unwrap() {
        loop {
            match client.as_location(text(task, "companyId"), location.as_str().unwrap()).await {
                Ok(_) => break minted += 1,
                Err(Error::Auth(why)) if why.contains("429") => {
                    refused += 1;
                    thread::sleep(pause);
                }
                Err(error) => panic!("{error}"),
            }
        }
    }
    let seconds = began.elapsed().as_secs_f64();
    println!("{}", json!({"minted": minted, "refused": refused, "seconds": seconds}));
}
