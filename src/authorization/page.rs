//! The static HTML pages of the loopback server. No page contains text from a request or from the
//! API.

/// A page, with its status line.
#[derive(Debug, PartialEq, Eq)]
pub struct Page {
    /// Status code and reason phrase.
    pub status: &'static str,
    /// Additional header lines.
    header: &'static str,
    title: &'static str,
    text: &'static str,
}

const fn page(status: &'static str, title: &'static str, text: &'static str) -> Page {
    Page { status, header: "", title, text }
}

pub const CONNECTED: Page =
    page("200 OK", "Connected", "The app is connected. You can close this window.");

pub const DENIED: Page = page(
    "403 Forbidden",
    "Not connected",
    "Access was not granted, so nothing was connected. You can close this window.",
);

pub const FAILED: Page = page(
    "500 Internal Server Error",
    "Not connected",
    "Access was granted, but the app could not be connected. See the error in the program that \
     asked for access, and start again there.",
);

pub const NOT_EXPECTED: Page = page(
    "400 Bad Request",
    "Not accepted",
    "This redirect does not belong to the current request. Start again in the program that asked \
     for access.",
);

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

impl Page {
    pub fn response(&self) -> String {
        let Page { status, header, title, text } = self;
        let body = format!(
            "<!DOCTYPE html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
             <meta name=\"viewport\" content=\"width=device-width\">\n<title>{title}</title>\n\
             <h1>{title}</h1>\n<p>{text}</p>\n</html>\n"
        );
        format!(
            "HTTP/1.1 {status}\r\nContent-Type: text/html; charset=utf-8\r\nContent-Length: \
             {}\r\n{header}\
             Connection: close\r\nCache-Control: no-store\r\nReferrer-Policy: no-referrer\r\n\
             Content-Security-Policy: default-src 'none'; base-uri 'none'; form-action 'none'; \
             frame-ancestors 'none'\r\nX-Content-Type-Options: nosniff\r\n\r\n{body}",
            body.len()
        )
    }
}
