//! The HTML frame, style and content security policy that all pages share.

use crate::answer::Answer;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::digest::{SHA256, digest};
use std::fmt::{self, Write};

/// The style of every page; a page's own style follows it.
const STYLE: &str = include_str!("page/page.css");

/// An inline icon, so that browsers do not request `/favicon.ico` and add to the request log.
const ICON: &str = "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' \
                    viewBox='0 0 16 16'%3E\
                    %3Crect width='16' height='16' rx='3' fill='%230b5c6b'/%3E\
                    %3Cpath d='M4 8h5m0-3v6M9 8h3' stroke='%23fff' stroke-width='1.6' \
                    fill='none'/%3E%3C/svg%3E";

/// A page before it is rendered.
#[derive(Debug, Default)]
pub(crate) struct Page<'a> {
    pub(crate) title: &'a str,
    /// The `class` attribute of the `body` element.
    pub(crate) class: &'a str,
    pub(crate) style: &'a str,
    pub(crate) script: &'a str,
    /// The HTML of the `body` element; its text is already escaped.
    pub(crate) body: String,
}

impl Page<'_> {
    /// Renders the page as a response. Its content security policy allows only its own style and
    /// script. A page with a script may also connect to the emulator.
    pub(crate) fn answer(self, status: u16) -> Answer {
        let Page { title, class, style, script, body } = self;
        let style = format!("{STYLE}{style}");
        let mut policy = format!(
            "default-src 'none'; style-src {}; img-src data:; base-uri 'none'; \
             frame-ancestors 'none'",
            source(&style)
        );
        let mut element = String::new();
        if !script.is_empty() {
            policy.push_str(&format!(
                "; script-src {}; connect-src 'self'; form-action 'self'",
                source(script)
            ));
            element = format!("<script>{script}</script>\n");
        }
        let html = format!(
            "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n\
             <title>{title} – GHL OAuth emulator</title>\n<link rel=\"icon\" href=\"{ICON}\">\n\
             <style>{style}</style>\n</head>\n\
             <body class=\"{class}\">\n{body}{element}</body>\n</html>\n",
            title = Escaped(title),
        );
        let headers = [
            ("content-type", "text/html; charset=utf-8"),
            ("content-security-policy", &policy),
            ("cache-control", "no-store"),
            ("x-content-type-options", "nosniff"),
            ("cross-origin-resource-policy", "same-origin"),
            // With `no-referrer`, browsers would send `Origin: null` with the pages' own forms.
            ("referrer-policy", "same-origin"),
        ];
        let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned()));
        Answer { status, headers: headers.to_vec(), body: html.into_bytes() }
    }
}

/// The content security policy source (hash) of an inline style or script.
fn source(text: &str) -> String {
    format!("'sha256-{}'", STANDARD.encode(digest(&SHA256, text.as_bytes())))
}

/// Writes to a page.
macro_rules! put {
    ($page:expr, $($text:tt)*) => {
        $crate::page::write_to($page, format_args!($($text)*))
    };
}
pub(crate) use put;

pub(crate) fn write_to(page: &mut String, text: fmt::Arguments<'_>) {
    page.write_fmt(text).expect("writing to a String cannot fail");
}

/// HTML-escaped text, for element content and quoted attributes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Escaped<T>(pub(crate) T);

impl<T: fmt::Display> fmt::Display for Escaped<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        struct Escaping<'a, 'b>(&'a mut fmt::Formatter<'b>);

        impl Write for Escaping<'_, '_> {
            fn write_str(&mut self, text: &str) -> fmt::Result {
                for character in text.chars() {
                    match character {
                        '&' => self.0.write_str("&amp;")?,
                        '<' => self.0.write_str("&lt;")?,
                        '>' => self.0.write_str("&gt;")?,
                        '"' => self.0.write_str("&quot;")?,
                        '\'' => self.0.write_str("&#39;")?,
                        _ => self.0.write_char(character)?,
                    }
                }
                Ok(())
            }
        }

        write!(Escaping(formatter), "{}", self.0)
    }
}

/// An escaped name that a narrow page wraps after its dots and slashes instead of inside a word.
pub(crate) fn breakable(name: &str) -> String {
    Escaped(name).to_string().replace('.', ".<wbr>").replace('/', "/<wbr>")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_cannot_break_out_of_the_markup() {
        assert_eq!(
            Escaped("<a href=\"x\">O'Neil & Sons</a>").to_string(),
            "&lt;a href=&quot;x&quot;&gt;O&#39;Neil &amp; Sons&lt;/a&gt;"
        );
    }

    #[test]
    fn page_without_a_script_forbids_all_scripts() {
        let policy = |page: Page<'_>| {
            let headers = page.answer(200).headers;
            headers.into_iter().find(|(name, _)| name == "content-security-policy").unwrap().1
        };
        let still = policy(Page::default());
        assert!(still.starts_with("default-src 'none'; style-src 'sha256-"), "{still}");
        assert!(!still.contains("script-src") && !still.contains("unsafe"), "{still}");
        let moving = policy(Page { script: "run()", ..Page::default() });
        assert!(moving.contains("script-src 'sha256-") && !moving.contains("unsafe"), "{moving}");
    }
}
