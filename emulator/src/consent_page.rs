//! The consent page in the browser: no scripts, light and dark, made for keyboards and screen readers too.

use crate::answer::Answer;
use crate::call::Call;
use crate::consent::{AuthorizationRequest, Decision};
use crate::directory::Directory;
use crate::fields::Fields;
use crate::origin::foreign;
use crate::state::{Shared, State};
use axum::extract::{Request, State as Extract};
use axum::response::{IntoResponse, Response};
use std::fmt::Write;

const STYLE: &str = "\
:root{color-scheme:light dark;--edge:#767676;--accent:#0b57d0;--on-accent:#fff}\
@media(prefers-color-scheme:dark){:root{--edge:#8e8e8e;--accent:#a8c7fa;--on-accent:#062e6f}}\
body{font:1rem/1.5 system-ui,sans-serif;max-width:36rem;margin:3rem auto;padding:0 1rem}\
h1{font-size:1.5rem}\
label{display:block;font-weight:600;margin:1.5rem 0 .5rem}\
select,button{font:inherit;padding:.6rem 1rem;border:1px solid var(--edge);border-radius:.4rem}\
select{width:100%}\
button{margin:1.5rem .75rem 0 0;min-width:7rem}\
button[value=allow]{background:var(--accent);color:var(--on-accent);border-color:var(--accent)}\
:focus-visible{outline:3px solid var(--accent);outline-offset:2px}\
code{overflow-wrap:anywhere}";

/// `GET`: shows the page.
pub(crate) async fn show(Extract(shared): Extract<Shared>, request: Request) -> Response {
    recorded(&shared, request, |state, call| {
        let asked =
            AuthorizationRequest::read(call.query.as_deref().unwrap_or_default(), &state.directory.app);
        match asked {
            Ok(asked) => document(200, choose(&asked, &state.directory)),
            Err(complaint) => document(400, refuse(&complaint)),
        }
    })
    .await
}

/// `POST`: takes the decision, and sends the browser back to the app.
pub(crate) async fn decide(Extract(shared): Extract<Shared>, request: Request) -> Response {
    // A page elsewhere must not consent in a person's name.
    let foreign = foreign(request.headers());
    recorded(&shared, request, |state, call| {
        if let Some(complaint) = foreign {
            return document(403, refuse(&format!("This is not the consent page's own form: {complaint}.")));
        }
        let redirect =
            AuthorizationRequest::read(call.query.as_deref().unwrap_or_default(), &state.directory.app)
                .and_then(|asked| asked.decide(state, decision(&call.body)?));
        match redirect {
            Ok(url) => Answer {
                status: 302,
                headers: vec![("location".to_owned(), url), no_store()],
                body: Vec::new(),
            },
            Err(complaint) => document(400, refuse(&complaint)),
        }
    })
    .await
}

async fn recorded(
    shared: &Shared,
    request: Request,
    serve: impl FnOnce(&mut State, &Call) -> Answer,
) -> Response {
    let call = match Call::read(request).await {
        Ok(call) => call,
        Err(refusal) => return refusal.into_response(),
    };
    let mut state = shared.lock();
    let now_ms = state.clock.now_ms();
    let entry = state.log.record(&call, now_ms);
    let answer = serve(&mut state, &call);
    state.log.set_status(entry, answer.status);
    answer.into_response()
}

/// The decision in the consent page's form.
fn decision(form: &[u8]) -> Result<Decision, String> {
    let fields = Fields::from_form(form).map_err(|error| format!("{error}."))?;
    match (fields.get("decision"), fields.get("place").and_then(|place| place.split_once(':'))) {
        (Some("deny"), _) => Ok(Decision::Deny),
        (Some("allow"), Some(("company", id))) => Ok(Decision::Company(id.to_owned())),
        (Some("allow"), Some(("location", id))) => Ok(Decision::Location(id.to_owned())),
        _ => Err("The form was not filled in.".to_owned()),
    }
}

fn document(status: u16, html: String) -> Answer {
    Answer {
        status,
        headers: vec![
            ("content-type".to_owned(), "text/html; charset=utf-8".to_owned()),
            (
                "content-security-policy".to_owned(),
                "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'".to_owned(),
            ),
            no_store(),
        ],
        body: html.into_bytes(),
    }
}

fn no_store() -> (String, String) {
    ("cache-control".to_owned(), "no-store".to_owned())
}

/// The page on which a person picks a place, and allows or denies.
fn choose(request: &AuthorizationRequest, directory: &Directory) -> String {
    let mut main = String::from(
        "<h1>Allow this app to connect?</h1>\n\
         <p>It asks for:</p>\n<ul>\n",
    );
    for scope in request.scope.split(' ') {
        write_to(&mut main, format_args!("<li><code>{}</code></li>\n", Escaped(scope)));
    }
    main.push_str(
        "</ul>\n<form method=\"post\">\n\
         <label for=\"place\">Where to install it</label>\n\
         <select id=\"place\" name=\"place\" required>\n",
    );
    for company in &directory.companies {
        write_to(
            &mut main,
            format_args!(
                "<optgroup label=\"{name}\">\n\
                 <option value=\"company:{id}\">{name}, with all its locations</option>\n",
                name = Escaped(&company.name),
                id = Escaped(&company.id),
            ),
        );
        for location in directory.locations_of(&company.id) {
            write_to(
                &mut main,
                format_args!(
                    "<option value=\"location:{}\">{}</option>\n",
                    Escaped(&location.id),
                    Escaped(&location.name),
                ),
            );
        }
        main.push_str("</optgroup>\n");
    }
    write_to(
        &mut main,
        format_args!(
            "</select>\n\
             <p>Afterwards your browser goes to <code>{}</code>.</p>\n\
             <button name=\"decision\" value=\"allow\">Allow</button>\
             <button name=\"decision\" value=\"deny\">Deny</button>\n\
             </form>\n",
            Escaped(&request.redirect_uri)
        ),
    );
    page("Connect an app", &main)
}

/// The page that tells a developer what is wrong with an authorization URL.
fn refuse(complaint: &str) -> String {
    let main = format!(
        "<h1>This link does not work</h1>\n<p role=\"alert\">{}</p>\n\
         <p>Nothing was installed. The app that sent you here has to correct its link.</p>\n",
        Escaped(complaint)
    );
    page("This link does not work", &main)
}

fn page(title: &str, main: &str) -> String {
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n\
         <title>{title} – GHL OAuth emulator</title>\n<style>{STYLE}</style>\n</head>\n\
         <body>\n<main>\n{main}</main>\n</body>\n</html>\n"
    )
}

fn write_to(page: &mut String, text: std::fmt::Arguments<'_>) {
    page.write_fmt(text).expect("a String takes everything");
}

/// Text that is safe between tags and inside quoted attributes.
struct Escaped<'a>(&'a str);

impl std::fmt::Display for Escaped<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for character in self.0.chars() {
            match character {
                '&' => formatter.write_str("&amp;")?,
                '<' => formatter.write_str("&lt;")?,
                '>' => formatter.write_str("&gt;")?,
                '"' => formatter.write_str("&quot;")?,
                '\'' => formatter.write_str("&#39;")?,
                _ => formatter.write_char(character)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_breaks_out_of_its_place() {
        assert_eq!(
            Escaped("<a href=\"x\">O'Neil & Sons</a>").to_string(),
            "&lt;a href=&quot;x&quot;&gt;O&#39;Neil &amp; Sons&lt;/a&gt;"
        );
        assert!(!refuse("<script>").contains("<script>"));
    }
}
