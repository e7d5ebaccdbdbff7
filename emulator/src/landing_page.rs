//! The page at the emulator's own redirect URI. It takes the place of the app's web server: a
//! person copies the URL from it into the app.

use crate::page::{Escaped, Page, put};
use crate::state::{LANDING_PATH, Shared};
use axum::extract::{Request, State as Extract};
use axum::response::{IntoResponse, Response};

const STYLE: &str = concat!(include_str!("page/consent.css"), include_str!("page/landing.css"));
const SCRIPT: &str = include_str!("page/landing.js");

/// `GET /landing`: the page.
pub(crate) async fn show(Extract(shared): Extract<Shared>, request: Request) -> Response {
    let base_url = shared.lock().base_url.clone();
    let query = request.uri().query().unwrap_or_default();
    // With the registered host, although the browser may have used another name of this machine.
    page(query, &format!("{base_url}{LANDING_PATH}?{query}")).answer(200).into_response()
}

fn page(query: &str, url: &str) -> Page<'static> {
    let given = |name: &str| form_urlencoded::parse(query.as_bytes()).any(|(one, _)| one == name);
    let (title, meaning) = if given("code") {
        (
            "Consent given",
            "The URL contains an authorization code, which the app exchanges for tokens, once and \
             within 10 minutes.",
        )
    } else if given("error") {
        ("Consent denied", "The URL tells the app so. It contains no authorization code.")
    } else {
        let main = "<h1>Nothing to copy yet</h1>\n<p>This is the app’s redirect URI. After a \
                    consent, the browser is redirected to this page, which shows the URL for the \
                    app.</p>\n";
        return framed("Nothing to copy yet", main);
    };
    let mut main = format!("<h1>{title}</h1>\n");
    put!(
        &mut main,
        "<p>{meaning}</p>\n\
         <label for=\"url\">URL for the app</label>\n\
         <textarea id=\"url\" readonly rows=\"3\" spellcheck=\"false\">{}</textarea>\n\
         <p class=\"choice\"><button type=\"button\" class=\"main act\" id=\"copy\">Copy URL\
         </button><span id=\"status\" role=\"status\"></span></p>\n\
         <p class=\"then\">Paste it where the app asks for it, for example into <code>ghl-oauth \
         login --paste</code>. An app with its own redirect URI gets it directly.</p>\n",
        Escaped(url)
    );
    framed(title, &main)
}

fn framed(title: &'static str, main: &str) -> Page<'static> {
    let body = crate::consent_page::frame(main);
    Page { title, class: "consent", style: STYLE, script: SCRIPT, body }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn url_is_escaped() {
        let body = page("code=1", "http://127.0.0.1:1/landing?code=</textarea><script>").body;
        assert!(!body.contains("<script>") && body.contains("&lt;/textarea&gt;"), "{body}");
    }
}
