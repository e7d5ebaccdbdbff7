//! The HTML pages of the loopback server. No page contains text from a request or from the API.

use crate::config::{ConsentPage, Language};

/// A page, with its status line.
#[derive(Debug, PartialEq, Eq)]
pub struct Page<'a> {
    /// Status code and reason phrase.
    pub status: &'static str,
    /// Additional header lines.
    header: &'static str,
    language: &'static str,
    color: &'a str,
    title: &'a str,
    text: &'a str,
}

/// The colour of the line above the text: visible on white and on black.
const GREY: &str = "#808080";

const STYLE: &str = "\
    :root{color-scheme:light dark}\
    body{font:1.1em/1.5 system-ui,sans-serif;max-width:34em;margin:4em auto;padding:0 1em}\
    hr{border-width:.5em 0 0}";

/// The SHA-256 of the style in base64: the only style that the browser applies. A colour in it
/// would change it, so the line has its colour in an attribute.
const STYLE_DIGEST: &str = "dL4dZWb0u/4FJQbUg33sn0h7irJpFjzCaDrr8+aHJNQ=";

const fn page(status: &'static str, title: &'static str, text: &'static str) -> Page<'static> {
    Page { status, header: "", language: "en", color: GREY, title, text }
}

pub const MALFORMED: Page =
    page("400 Bad Request", "Bad request", "This is not a valid HTTP request.");

pub const NOT_FOUND: Page = page("404 Not Found", "Not found", "There is nothing here.");

pub const NOT_ALLOWED: Page = Page {
    header: "Allow: GET\r\n",
    ..page("405 Method Not Allowed", "Not allowed", "Only GET is allowed.")
};

pub const MISDIRECTED: Page =
    page("421 Misdirected Request", "Misdirected", "This host is not served here.");

pub const TOO_LARGE: Page =
    page("431 Request Header Fields Too Large", "Too large", "The request header is too large.");

const ENGLISH: [(&str, &str); 4] = [
    ("Connected", "The app is connected. You can close this window."),
    (
        "Not connected",
        "Access was not granted, so nothing was connected. You can close this window.",
    ),
    (
        "Not connected",
        "Access was granted, but the app could not be connected. See the error in the program that \
         asked for access, and start again there.",
    ),
    (
        "Not accepted",
        "This redirect does not belong to the current request. Start again in the program that \
         asked for access.",
    ),
];

const SPANISH: [(&str, &str); 4] = [
    ("Conectado", "La aplicación está conectada. Puede cerrar esta ventana."),
    (
        "No conectado",
        "No se concedió el acceso, por lo que no se ha conectado nada. Puede cerrar esta ventana.",
    ),
    (
        "No conectado",
        "Se concedió el acceso, pero no se ha podido conectar la aplicación. Consulte el error en \
         el programa que pidió el acceso y empiece de nuevo desde allí.",
    ),
    (
        "No aceptado",
        "Esta redirección no corresponde a la solicitud actual. Empiece de nuevo en el programa \
         que pidió el acceso.",
    ),
];

/// The outcome of a consent, in the order of the texts.
#[derive(Debug, Clone, Copy)]
pub enum Outcome {
    Connected,
    Denied,
    Failed,
    /// The redirect belongs to no expected consent.
    NotExpected,
}

/// The page about an outcome, in the configured language, colour and words.
pub fn about(outcome: Outcome, config: &ConsentPage) -> Page<'_> {
    let (language, texts) = match config.language {
        Language::English => ("en", &ENGLISH),
        Language::Spanish => ("es", &SPANISH),
    };
    let (status, own) = match outcome {
        Outcome::Connected => ("200 OK", Some((&config.title, &config.message))),
        Outcome::Denied => {
            ("403 Forbidden", Some((&config.failure_title, &config.failure_message)))
        }
        Outcome::Failed => {
            ("500 Internal Server Error", Some((&config.failure_title, &config.failure_message)))
        }
        Outcome::NotExpected => ("400 Bad Request", None),
    };
    let (title, text) = texts[outcome as usize];
    let (own_title, own_text) = own.unwrap_or((&None, &None));
    Page {
        status,
        header: "",
        language,
        color: config.color.as_deref().unwrap_or(GREY),
        title: own_title.as_deref().unwrap_or(title),
        text: own_text.as_deref().unwrap_or(text),
    }
}

impl Page<'_> {
    pub fn response(&self) -> String {
        let Page { status, header, language, color, .. } = self;
        let [title, text] = [self.title, self.text].map(escaped);
        let body = format!(
            "<!DOCTYPE html>\n<html lang=\"{language}\">\n<meta charset=\"utf-8\">\n\
             <meta name=\"viewport\" content=\"width=device-width\">\n<title>{title}</title>\n\
             <style>{STYLE}</style>\n<hr color=\"{color}\">\n\
             <h1>{title}</h1>\n<p>{text}</p>\n</html>\n"
        );
        format!(
            "HTTP/1.1 {status}\r\nContent-Type: text/html; charset=utf-8\r\nContent-Length: \
             {}\r\n{header}\
             Connection: close\r\nCache-Control: no-store\r\nReferrer-Policy: no-referrer\r\n\
             Content-Security-Policy: default-src 'none'; style-src 'sha256-{STYLE_DIGEST}'; \
             base-uri 'none'; form-action 'none'; frame-ancestors 'none'\r\n\
             X-Content-Type-Options: nosniff\r\n\r\n{body}",
            body.len()
        )
    }
}

/// Text for HTML, outside of attributes.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
