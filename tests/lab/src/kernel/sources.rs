//! The machine's package sources, read so that another suite can be had from the same mirror.

use std::fs;
use std::path::{Path, PathBuf};

use crate::error::{LabError, Result};

/// One `deb` source.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Source {
    uri: String,
    suites: Vec<String>,
    signed_by: Option<String>,
}

/// The code name of the machine's own suite.
pub(crate) fn native_suite() -> Option<String> {
    let text = fs::read_to_string("/etc/os-release").ok()?;
    let name = text.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="))?;
    Some(name.trim_matches('"').to_owned())
}

/// The text of a sources file for one suite, with this machine's mirrors.
pub(crate) fn for_suite(suite: &str) -> Result<String> {
    let native = native_suite().unwrap_or_default();
    let sources = configured();
    let of = |wanted: &[String]| {
        sources.iter().find(|source| source.suites.iter().any(|suite| wanted.contains(suite)))
    };
    let main = of(&[native.clone(), "stable".into(), "sid".into(), "unstable".into()])
        .ok_or_else(|| LabError::Setup("this machine has no package source for a suite".into()))?;
    let mut text = main.line(suite);
    let security = of(&[format!("{native}-security"), format!("{native}/updates")]);
    if let Some(security) = security.filter(|_| suite != "sid") {
        text += &security.line(&format!("{suite}-security"));
    }
    Ok(text)
}

impl Source {
    fn line(&self, suite: &str) -> String {
        let key = self.signed_by.as_ref().map(|key| format!(" signed-by={key}"));
        format!("deb [arch=amd64{}] {} {suite} main\n", key.unwrap_or_default(), self.uri)
    }
}

fn configured() -> Vec<Source> {
    let mut files = vec![PathBuf::from("/etc/apt/sources.list")];
    let parts = fs::read_dir("/etc/apt/sources.list.d").into_iter().flatten().flatten();
    files.extend(parts.map(|entry| entry.path()));
    files.sort();
    files.iter().flat_map(|path| read(path)).collect()
}

fn read(path: &Path) -> Vec<Source> {
    let text = fs::read_to_string(path).unwrap_or_default();
    match path.extension().and_then(|name| name.to_str()) {
        Some("list") => text.lines().filter_map(one_line).collect(),
        Some("sources") => text.split("\n\n").flat_map(paragraph).collect(),
        _ => Vec::new(),
    }
}

/// `deb [options] URI suite component...`
fn one_line(line: &str) -> Option<Source> {
    let rest = line.trim().strip_prefix("deb ")?.trim();
    let (options, rest) = match rest.strip_prefix('[') {
        Some(rest) => rest.split_once(']')?,
        None => ("", rest),
    };
    let mut words = rest.split_whitespace();
    let uri = words.next()?.to_owned();
    let suites = vec![words.next()?.to_owned()];
    let signed_by =
        options.split_whitespace().find_map(|o| o.strip_prefix("signed-by=")).map(str::to_owned);
    Some(Source { uri, suites, signed_by })
}

/// One paragraph of the deb822 format; one source for each of its URIs.
fn paragraph(text: &str) -> Vec<Source> {
    let field = |name: &str| {
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let mut fields = lines.filter_map(|line| line.split_once(':'));
        let found = fields.find(|(key, _)| key.trim().eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.trim().to_owned()).unwrap_or_default()
    };
    let words = |name: &str| field(name).split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    if !words("Types").contains(&"deb".to_owned()) || field("Enabled") == "no" {
        return Vec::new();
    }
    let suites = words("Suites");
    let signed_by = Some(field("Signed-By")).filter(|key| key.starts_with('/'));
    let source = |uri| Source { uri, suites: suites.clone(), signed_by: signed_by.clone() };
    words("URIs").into_iter().map(source).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_formats() {
        let key = Some("/k.gpg".to_owned());
        let one =
            one_line("deb [arch=amd64 signed-by=/k.gpg] http://m/debian trixie main").unwrap();
        assert_eq!(
            one,
            Source { uri: "http://m/debian".into(), suites: vec!["trixie".into()], signed_by: key }
        );
        assert_eq!(one_line("# deb http://m/debian trixie main"), None);
        assert_eq!(one_line("deb-src http://m/debian trixie main"), None);
        let text =
            "Types: deb\n# http://old\nURIs: http://m/debian\nSuites: a a-updates\nSigned-By: /k\n";
        let found = paragraph(text);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].suites, ["a", "a-updates"]);
        assert_eq!(found[0].line("b"), "deb [arch=amd64 signed-by=/k] http://m/debian b main\n");
        assert!(paragraph("Types: deb-src\nURIs: http://m\nSuites: a\n").is_empty());
    }
}
