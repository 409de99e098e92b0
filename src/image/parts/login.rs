//! Who this host is to a registry: the entries of the credential files, by the rules of containers-auth.json(5).
//!
//! Secrets stay in memory: they are in no argument, log or error, and what holds them cannot be printed.

use crate::host::surroundings::Surroundings;
use crate::image::proxy::SourceOptions;
use crate::image::signature::find_credentials;
use anyhow::Result;
use openssl::base64;
use serde::Deserialize;
use serde_json::{Map, Value};

/// What the registry is told.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Login {
    /// A user and the password.
    Password(String, String),
    /// A token that the registry's token service exchanges for others.
    IdentityToken(String),
}

/// Everything that is known of credentials.
pub(super) struct Logins {
    documents: Vec<Map<String, Value>>,
    helpers: Vec<String>,
    surroundings: Surroundings,
}

/// Stands for the files among the programs that know credentials.
const FILES: &str = "containers-auth.json";

impl Logins {
    /// Reads the credential files; `helpers` are the programs to be asked, where others than the files are configured.
    pub(super) fn load(options: &SourceOptions, helpers: Option<&[String]>) -> Result<Self> {
        Ok(Self {
            documents: find_credentials(options)?.documents(&options.surroundings)?,
            helpers: helpers.map_or_else(|| vec![FILES.to_owned()], <[String]>::to_vec),
            surroundings: options.surroundings.clone(),
        })
    }

    /// Returns what is known for the repository `host/path`, if anything is.
    ///
    /// Fails when a program that is named for it cannot be started.
    pub(super) fn find(&self, host: &str, path: &str) -> Result<Option<Login>> {
        for helper in &self.helpers {
            let found = match helper == FILES {
                true => self.in_files(host, path)?,
                false => self.ask(helper, host)?,
            };
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }

    fn in_files(&self, host: &str, path: &str) -> Result<Option<Login>> {
        for document in &self.documents {
            let helper = document.get("credHelpers").and_then(|helpers| helpers.get(host));
            let found = match helper.and_then(Value::as_str) {
                Some(helper) => self.ask(helper, host)?,
                None => entry(document, host, path).and_then(decode),
            };
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }

    fn ask(&self, helper: &str, host: &str) -> Result<Option<Login>> {
        self.ask_program(&format!("docker-credential-{helper}"), host)
    }

    /// Asks a program of Docker's protocol; one that fails knows nothing.
    fn ask_program(&self, program: &str, host: &str) -> Result<Option<Login>> {
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Answer {
            username: String,
            secret: String,
        }
        let output = self.surroundings.cmd(program).arg("get").input(host).output()?;
        if !output.status.success() {
            tracing::debug!("{program} knows nothing about {host}: {}", output.status);
            return Ok(None);
        }
        // The error of the parser would repeat what it read.
        let Ok(answer) = serde_json::from_slice::<Answer>(&output.stdout) else {
            tracing::debug!("{program} gave no valid answer about {host}");
            return Ok(None);
        };
        Ok(match answer.username.as_str() {
            "<token>" => Some(Login::IdentityToken(answer.secret)),
            "" => None,
            _ => Some(Login::Password(answer.username, answer.secret)),
        })
    }
}

/// Finds the entry for a repository: its name or the longest of the names above it, and last of all the host as older
/// tools wrote it.
fn entry<'a>(document: &'a Map<String, Value>, host: &str, path: &str) -> Option<&'a Value> {
    let entries = document.get("auths")?.as_object()?;
    let mut key = format!("{host}/{path}");
    loop {
        if let Some(entry) = entries.get(&key) {
            return Some(entry);
        }
        let parent = key.rfind('/')?;
        key.truncate(parent);
        if key == host {
            break;
        }
    }
    entries.get(host).or_else(|| {
        let written = |key: &str| {
            let bare = key
                .strip_prefix("http://")
                .or_else(|| key.strip_prefix("https://"));
            let name = bare.map_or(key, |bare| bare.split('/').next().unwrap_or(bare));
            normal(name) == normal(host)
        };
        entries
            .iter()
            .find(|(key, _)| written(key))
            .map(|(_, entry)| entry)
    })
}

/// Docker's own registry has several names.
fn normal(host: &str) -> &str {
    match host {
        "docker.io" | "registry-1.docker.io" => "index.docker.io",
        other => other,
    }
}

/// Reads one entry; one without or with an unreadable login is none.
fn decode(entry: &Value) -> Option<Login> {
    let text = |name: &str| {
        entry
            .get(name)
            .and_then(Value::as_str)
            .filter(|text| !text.is_empty())
    };
    if let Some(token) = text("identitytoken") {
        return Some(Login::IdentityToken(token.to_owned()));
    }
    let decoded = String::from_utf8(base64::decode_block(text("auth")?).ok()?).ok()?;
    let (user, password) = decoded.split_once(':')?;
    Some(Login::Password(
        user.to_owned(),
        password.trim_matches('\0').to_owned(),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn logins(documents: &[Value]) -> Logins {
        Logins {
            documents: documents
                .iter()
                .map(|value| value.as_object().unwrap().clone())
                .collect(),
            helpers: vec![FILES.to_owned()],
            surroundings: Surroundings::below_home("/nowhere"),
        }
    }

    fn auth(user: &str) -> Value {
        serde_json::json!({ "auth": base64::encode_block(format!("{user}:s3cret").as_bytes()) })
    }

    fn user(login: Option<Login>) -> Option<String> {
        match login? {
            Login::Password(user, password) => {
                assert_eq!(password, "s3cret");
                Some(user)
            }
            Login::IdentityToken(token) => Some(format!("token {token}")),
        }
    }

    #[test]
    fn the_longest_name_wins_within_a_file_and_the_first_file_over_others() {
        let known = logins(&[
            serde_json::json!({ "auths": {
                "r.example": auth("host"), "r.example/team": auth("team"), "r.example/team/os": auth("os"),
            }}),
            serde_json::json!({ "auths": { "r.example/other": auth("late"), "s.example": auth("second") } }),
        ]);
        for (host, path, expected) in [
            ("r.example", "team/os", Some("os")),
            ("r.example", "team/other", Some("team")),
            ("r.example", "teams/os", Some("host")),
            ("r.example", "other", Some("host")),
            ("s.example", "os", Some("second")),
            ("s.example:5000", "os", None),
        ] {
            let found = user(known.find(host, path).unwrap());
            assert_eq!(found.as_deref(), expected, "{host}/{path}");
        }
    }

    #[test]
    fn addresses_of_older_tools_count_as_their_host() {
        let known = logins(&[serde_json::json!({ "auths": {
            "https://index.docker.io/v1/": auth("docker"), "http://r.example/v2/": auth("plain"),
        }})]);
        let docker = known.find("docker.io", "library/debian").unwrap();
        assert_eq!(user(docker).as_deref(), Some("docker"));
        assert_eq!(
            user(known.find("r.example", "os").unwrap()).as_deref(),
            Some("plain")
        );
    }

    #[test]
    fn tokens_are_known_and_broken_entries_are_none() {
        let known = logins(&[serde_json::json!({ "auths": {
            "t.example": { "auth": auth("user")["auth"], "identitytoken": "abc" },
            "a.example": { "auth": "not base 64!" }, "b.example": {}, "c.example": { "auth": "bm9jb2xvbg==" },
        }})]);
        assert_eq!(
            user(known.find("t.example", "os").unwrap()).as_deref(),
            Some("token abc")
        );
        for host in ["a.example", "b.example", "c.example"] {
            assert_eq!(user(known.find(host, "os").unwrap()), None, "{host}");
        }
    }

    #[test]
    fn a_program_is_asked_on_its_standard_input() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("docker-credential-test");
        let script = "#!/bin/sh\n[ \"$*\" = get ] || exit 1\nread -r host\n\
                      [ \"$host\" = r.example ] || exit 1\n\
                      echo '{\"ServerURL\":\"x\",\"Username\":\"helped\",\"Secret\":\"s3cret\"}'\n";
        std::fs::write(&path, script).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        let known = logins(&[]);
        let program = path.to_str().unwrap();
        let ask = |host: &str| known.ask_program(program, host).unwrap();
        assert_eq!(user(ask("r.example")).as_deref(), Some("helped"));
        assert_eq!(user(ask("other.example")), None);
        assert!(known.ask("there-is-none-of-this-name", "r.example").is_err());
    }
}
