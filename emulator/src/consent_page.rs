//! The consent page: no scripts, light and dark themes, usable with a keyboard and a screen reader.

use crate::answer::Answer;
use crate::call::Call;
use crate::consent::{AuthorizationRequest, Decision};
use crate::dashboard::PATH;
use crate::directory::Directory;
use crate::fields::Fields;
use crate::origin::foreign;
use crate::page::{Escaped, Page, breakable, put};
use crate::state::{Shared, State};
use axum::extract::{Request, State as Extract};
use axum::response::{IntoResponse, Response};

const STYLE: &str = include_str!("page/consent.css");

/// `GET`: shows the page.
pub(crate) async fn show(Extract(shared): Extract<Shared>, request: Request) -> Response {
    recorded(&shared, request, |state, call| {
        let asked = AuthorizationRequest::read(
            call.query.as_deref().unwrap_or_default(),
            &state.directory.app,
        );
        match asked {
            Ok(asked) => choose(&asked, &state.directory).answer(200),
            Err(complaint) => refuse(&complaint).answer(400),
        }
    })
    .await
}

/// `POST`: carries out the decision and redirects the browser to the app.
pub(crate) async fn decide(Extract(shared): Extract<Shared>, request: Request) -> Response {
    // Cross-site request forgery check: a page of another origin must not give consent.
    let foreign = foreign(request.headers());
    recorded(&shared, request, |state, call| {
        if let Some(complaint) = foreign {
            return refuse(&format!(
                "The form was not submitted from the consent page: {complaint}."
            ))
            .answer(403);
        }
        let redirect = AuthorizationRequest::read(
            call.query.as_deref().unwrap_or_default(),
            &state.directory.app,
        )
        .and_then(|asked| asked.decide(state, decision(&call.body)?));
        match redirect {
            Ok(url) => Answer {
                status: 302,
                headers: vec![("location".to_owned(), url), no_store()],
                body: Vec::new(),
            },
            Err(complaint) => refuse(&complaint).answer(400),
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

/// Reads the decision from the submitted form.
fn decision(form: &[u8]) -> Result<Decision, String> {
    let fields = Fields::from_form(form).map_err(|error| format!("{error}."))?;
    match (fields.get("decision"), fields.get("place").and_then(|place| place.split_once(':'))) {
        (Some("deny"), _) => Ok(Decision::Deny),
        (Some("allow"), Some(("company", id))) => Ok(Decision::Company(id.to_owned())),
        (Some("allow"), Some(("location", id))) => Ok(Decision::Location(id.to_owned())),
        _ => Err("No decision was submitted.".to_owned()),
    }
}

fn no_store() -> (String, String) {
    ("cache-control".to_owned(), "no-store".to_owned())
}

/// The page on which a user selects a company or location, and allows or denies.
fn choose(request: &AuthorizationRequest, directory: &Directory) -> Page<'static> {
    let mut main = String::from(
        "<h1>Allow this app to connect?</h1>\n\
         <h2 id=\"asks\">Requested scopes</h2>\n<ul class=\"scopes\" aria-labelledby=\"asks\">\n",
    );
    for scope in request.scope.split(' ') {
        put!(&mut main, "<li><code>{}</code></li>\n", breakable(scope));
    }
    main.push_str(
        "</ul>\n<form method=\"post\">\n\
         <label for=\"place\">Where to install it</label>\n\
         <select id=\"place\" name=\"place\" required>\n",
    );
    for company in &directory.companies {
        put!(
            &mut main,
            "<optgroup label=\"{name}\">\n\
             <option value=\"company:{id}\">{name}, with all its locations</option>\n",
            name = Escaped(&company.name),
            id = Escaped(&company.id),
        );
        for location in directory.locations_of(&company.id) {
            put!(
                &mut main,
                "<option value=\"location:{}\">{}</option>\n",
                Escaped(&location.id),
                Escaped(&location.name),
            );
        }
        main.push_str("</optgroup>\n");
    }
    put!(
        &mut main,
        "</select>\n\
         <p class=\"then\">You will be redirected to <code>{}</code></p>\n\
         <p class=\"choice\"><button name=\"decision\" value=\"allow\">Allow</button>\
         <button name=\"decision\" value=\"deny\">Deny</button></p>\n\
         </form>\n",
        breakable(&request.redirect_uri)
    );
    page("Connect an app", &main)
}

/// The page that tells a developer what is wrong with an authorization URL.
fn refuse(complaint: &str) -> Page<'static> {
    let main = format!(
        "<h1>This link does not work</h1>\n<p role=\"alert\">{}</p>\n\
         <p>Nothing was installed. The app must correct its link.</p>\n",
        Escaped(complaint)
    );
    page("This link does not work", &main)
}

fn page(title: &'static str, main: &str) -> Page<'static> {
    Page { title, class: "consent", style: STYLE, script: "", body: frame(main) }
}

/// The body of a page with one sheet.
pub(crate) fn frame(main: &str) -> String {
    format!(
        "<main>\n<div class=\"sheet\">\n{main}</div>\n</main>\n\
         <footer><span>GHL OAuth emulator, not the real service</span>\
         <a href=\"{PATH}\">Dashboard</a></footer>\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_message_is_escaped() {
        assert!(!refuse("<script>").body.contains("<script>"));
    }
}
