//! What a registry that refuses a request asks for: the header `WWW-Authenticate`.

/// A way to authenticate that this program knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Challenge {
    /// User and password with each request.
    Basic,
    /// A token that a service hands out.
    Bearer(TokenService),
}

/// Where a token is had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TokenService {
    /// The address of the service.
    pub(super) realm: String,
    /// What the registry is to the service.
    pub(super) service: Option<String>,
}

/// Returns the first challenge in the headers that this program can answer.
pub(super) fn first<'a>(headers: impl Iterator<Item = &'a str>) -> Option<Challenge> {
    headers.flat_map(parse).find_map(|(scheme, parameters)| {
        if scheme.eq_ignore_ascii_case("basic") {
            return Some(Challenge::Basic);
        }
        let value = |wanted: &str| {
            parameters
                .iter()
                .find(|(name, _)| name.eq_ignore_ascii_case(wanted))
                .map(|(_, value)| value.clone())
        };
        if !scheme.eq_ignore_ascii_case("bearer") {
            return None;
        }
        Some(Challenge::Bearer(TokenService {
            realm: value("realm")?,
            service: value("service").filter(|service| !service.is_empty()),
        }))
    })
}

type Parameters = Vec<(String, String)>;

/// Splits a header into its challenges: `Scheme name=value, name="value", Scheme ...`.
fn parse(header: &str) -> Vec<(String, Parameters)> {
    let mut challenges: Vec<(String, Parameters)> = Vec::new();
    let mut rest = header.trim_start_matches(separator);
    while !rest.is_empty() {
        let end = rest
            .find(|c: char| separator(c) || c == '=')
            .unwrap_or(rest.len());
        let (word, behind) = rest.split_at(end);
        if word.is_empty() {
            // Nothing that the grammar knows begins here.
            return challenges;
        }
        rest = match behind.trim_start().strip_prefix('=') {
            Some(behind) => {
                let (value, behind) = value(behind.trim_start());
                if let Some((_, parameters)) = challenges.last_mut() {
                    parameters.push((word.to_owned(), value));
                }
                behind
            }
            None => {
                challenges.push((word.to_owned(), Parameters::new()));
                behind
            }
        }
        .trim_start_matches(separator);
    }
    challenges
}

fn separator(c: char) -> bool {
    c == ',' || c.is_ascii_whitespace()
}

/// Reads a value, quoted or not; returns it and what comes behind it.
fn value(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find(separator).unwrap_or(text.len());
        return (text[..end].to_owned(), &text[end..]);
    };
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((place, character)) = characters.next() {
        match character {
            '"' => return (value, &quoted[place + 1..]),
            '\\' => value.extend(characters.next().map(|(_, character)| character)),
            _ => value.push(character),
        }
    }
    (value, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bearer(realm: &str, service: Option<&str>) -> Option<Challenge> {
        Some(Challenge::Bearer(TokenService {
            realm: realm.to_owned(),
            service: service.map(str::to_owned),
        }))
    }

    #[test]
    fn challenges_are_read_as_registries_write_them() {
        for (headers, expected) in [
            (&["Basic realm=\"a, b\""][..], Some(Challenge::Basic)),
            (
                &[
                    "Bearer realm=\"https://a.test/token\",service=\"r.test\",scope=\"repository:os:pull,push\"",
                ][..],
                bearer("https://a.test/token", Some("r.test")),
            ),
            (
                &["bearer service=r.test , realm=\"https://a.test/t?x=\\\"1\\\"\""][..],
                bearer("https://a.test/t?x=\"1\"", Some("r.test")),
            ),
            (
                &["Negotiate, Bearer realm=\"https://a.test\", Basic realm=x"][..],
                bearer("https://a.test", None),
            ),
            (&["Digest realm=x", "Basic"][..], Some(Challenge::Basic)),
            (&["Bearer service=x"][..], None),
            (&["", "=", ",,", "Bearer realm", "\"", "a=\"unfinished"][..], None),
        ] {
            assert_eq!(first(headers.iter().copied()), expected, "{headers:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn whatever_a_registry_writes_is_read_to_its_end(header in "[ ,=\"\\\\a-zé]{0,60}") {
            first([header.as_str()].into_iter());
        }
    }
}
