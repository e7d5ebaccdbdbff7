//! The HTTP server thread: accepts connections and passes each request to its handler.

use crate::certificate::Tls;
use crate::delivery::Script;
use crate::fault::Ending;
use crate::socket::Socket;
use crate::state::{CONSENT_PATHS, LANDING_PATH, Shared};
use crate::{api, consent_page, control, dashboard, landing_page, scenario};
use axum::Router;
use axum::routing::get;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use std::error::Error;
use std::fmt;
use std::io;
use std::net::TcpListener;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio_rustls::TlsAcceptor;

/// The running server; dropping it stops it.
#[derive(Debug)]
pub(crate) struct Server {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Serves on `listener`, over HTTPS if `tls` is given.
    pub(crate) fn start(
        listener: TcpListener,
        tls: Option<Tls>,
        shared: &Shared,
    ) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let listener = {
            let _guard = runtime.enter();
            tokio::net::TcpListener::from_std(listener)?
        };
        let acceptor = Acceptor {
            tls: tls.map(|tls| tls.acceptor),
            router: router(shared),
            shared: shared.clone(),
        };
        let (stop, stopped) = oneshot::channel();
        let thread =
            std::thread::Builder::new().name("ghl-oauth-emulator".to_owned()).spawn(move || {
                runtime.block_on(async {
                    tokio::select! {
                        () = scenario::run_clock(acceptor.shared.clone()) => {}
                        () = acceptor.accept(listener) => {}
                        _ = stopped => {}
                    }
                });
                // Dropping the runtime here closes every connection.
            })?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // The panic hook has already reported a panic of that thread.
            let _ = thread.join();
        }
    }
}

/// The shared context of all connections.
#[derive(Clone)]
struct Acceptor {
    tls: Option<TlsAcceptor>,
    router: Router,
    shared: Shared,
}

impl Acceptor {
    async fn accept(self, listener: tokio::net::TcpListener) {
        loop {
            match listener.accept().await {
                Ok((socket, _)) => drop(tokio::spawn(self.clone().receive(socket))),
                // Probably out of file descriptors; some are freed soon.
                Err(_) => tokio::time::sleep(std::time::Duration::from_millis(10)).await,
            }
        }
    }

    async fn receive(self, socket: TcpStream) {
        // Responses are small and complete, so Nagle's algorithm would only delay them.
        let _ = socket.set_nodelay(true);
        let delay = {
            let mut state = self.shared.lock();
            state.connections.accept();
            state.settings.accept_delay()
        };
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        match &self.tls {
            None => self.serve(socket).await,
            // A client that rejects the certificate disconnects, as it should.
            Some(tls) => {
                if let Ok(socket) = tls.accept(socket).await {
                    self.serve(socket).await;
                }
            }
        }
    }

    /// Serves a connection until it ends or is ordered to close.
    async fn serve(&self, socket: impl Socket) {
        let order = self.shared.lock().connections.open();
        let scripted = Arc::new(Mutex::new(None));
        let service = service_fn(|request| {
            let answer = TowerToHyperService::new(self.router.clone()).call(request);
            let scripted = Arc::clone(&scripted);
            Box::pin(async move {
                let Ok(mut response) = answer.await;
                match response.extensions_mut().remove::<Script>() {
                    None => Ok(response),
                    Some(script) => {
                        *scripted.lock().unwrap_or_else(PoisonError::into_inner) = Some(script);
                        // hyper sends nothing after an error, which leaves the socket to the
                        // script.
                        Err(ScriptTakesOver)
                    }
                }
            })
        });
        let mut connection = http1::Builder::new().serve_connection(TokioIo::new(socket), service);
        let order = tokio::select! {
            // Errors are ignored: the client has disconnected.
            _ = &mut connection => None,
            Ok(order) = order => Some(order),
        };
        let socket = connection.into_parts().io.into_inner();
        let ordered = order.as_ref().map(|order| Script::ending(order.ending));
        // With `Silence`, the connection stays open, so completion is reported at once.
        let _done = order.filter(|order| order.ending != Ending::Silence);
        let script =
            ordered.or_else(|| scripted.lock().unwrap_or_else(PoisonError::into_inner).take());
        if let Some(script) = script {
            script.play(socket).await;
        }
    }
}

#[derive(Debug)]
struct ScriptTakesOver;

impl fmt::Display for ScriptTakesOver {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a script takes over")
    }
}

impl Error for ScriptTakesOver {}

fn router(shared: &Shared) -> Router {
    let mut router = Router::new();
    for path in CONSENT_PATHS {
        router = router.route(path, get(consent_page::show).post(consent_page::decide));
    }
    router
        .route(dashboard::PATH, get(dashboard::show))
        .route(LANDING_PATH, get(landing_page::show))
        .route("/", get(dashboard::lead).fallback(api::serve))
        .nest("/_emulator", control::router())
        .fallback(api::serve)
        .with_state(shared.clone())
}
