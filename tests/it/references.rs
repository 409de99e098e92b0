//! The forms of image references that people and origin files use.

use crate::support::home::{ACCEPT_ANYTHING, Home};
use apt_ostree::fault::{Fault, Kind};
use apt_ostree::image::policy::{Policy, Verdict};
use apt_ostree::image::reference::{self, ImageReference};
use std::path::Path;

const DIGEST: &str = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

fn policy(text: &str) -> Policy {
    Policy::parse(Path::new("/policy.json"), text.as_bytes()).expect("policy")
}

#[test]
fn stored_forms_are_read_and_written_as_bootc_does() {
    for (text, written, skopeo) in [
        (
            "ostree-unverified-registry:r.example/os:1",
            "",
            "docker://r.example/os:1",
        ),
        (
            "ostree-unverified-image:docker://r.example/os:1",
            "ostree-unverified-registry:r.example/os:1",
            "docker://r.example/os:1",
        ),
        (
            "ostree-unverified-image:registry:r.example/os:1",
            "ostree-unverified-registry:r.example/os:1",
            "docker://r.example/os:1",
        ),
        (
            "ostree-image-signed:docker://r.example/os:1",
            "",
            "docker://r.example/os:1",
        ),
        (
            "ostree-image-signed:registry:r.example/os:1",
            "ostree-image-signed:docker://r.example/os:1",
            "docker://r.example/os:1",
        ),
        ("ostree-unverified-image:oci:/srv/os:1", "", "oci:/srv/os:1"),
        (
            "ostree-unverified-image:oci-archive:/srv/os.tar",
            "",
            "oci-archive:/srv/os.tar",
        ),
        (
            "ostree-unverified-image:docker-archive:/srv/os.tar",
            "",
            "docker-archive:/srv/os.tar",
        ),
        ("ostree-unverified-image:dir:/srv/os", "", "dir:/srv/os"),
        (
            "ostree-unverified-image:containers-storage:localhost/os",
            "",
            "containers-storage:localhost/os",
        ),
        (
            "ostree-remote-image:keys:docker://r.example/os:1",
            "",
            "docker://r.example/os:1",
        ),
        (
            "ostree-remote-registry:keys:r.example/os:1",
            "ostree-remote-image:keys:docker://r.example/os:1",
            "docker://r.example/os:1",
        ),
    ] {
        let reference: ImageReference = text.parse().unwrap_or_else(|fault| panic!("{text}: {fault}"));
        let written = if written.is_empty() { text } else { written };
        assert_eq!(reference.to_string(), written, "{text}");
        assert_eq!(reference.skopeo_name(), skopeo, "{text}");
        assert_eq!(
            written.parse::<ImageReference>().as_ref(),
            Ok(&reference),
            "{text}"
        );
    }
}

#[test]
fn short_forms_are_completed() {
    let policy = policy(ACCEPT_ANYTHING);
    let here = std::env::current_dir().unwrap();
    let relative = format!("ostree-unverified-image:oci:{}/images:1", here.display());
    for (text, meant) in [
        ("r.example/os:1", "ostree-unverified-registry:r.example/os:1"),
        ("debian:13", "ostree-unverified-registry:debian:13"),
        (
            "docker://r.example/os:1",
            "ostree-unverified-registry:r.example/os:1",
        ),
        (
            "oci://r.example/os:1",
            "ostree-unverified-registry:r.example/os:1",
        ),
        (
            "registry:r.example/os:1",
            "ostree-unverified-registry:r.example/os:1",
        ),
        (
            "local://localhost/os",
            "ostree-unverified-image:containers-storage:localhost/os",
        ),
        (
            "containers-storage:localhost/os",
            "ostree-unverified-image:containers-storage:localhost/os",
        ),
        ("oci:/srv/os:1", "ostree-unverified-image:oci:/srv/os:1"),
        ("oci:images:1", relative.as_str()),
        (
            "oci-archive:/srv/os.tar",
            "ostree-unverified-image:oci-archive:/srv/os.tar",
        ),
        (
            "docker-archive:/srv/os.tar",
            "ostree-unverified-image:docker-archive:/srv/os.tar",
        ),
        ("dir:/srv/os", "ostree-unverified-image:dir:/srv/os"),
    ] {
        let resolved = reference::resolve(text, &policy).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(resolved.reference.to_string(), meant, "{text}");
        assert!(resolved.chosen_form_note.is_some(), "{text}");
    }
    let explicit = reference::resolve("ostree-unverified-registry:r.example/os:1", &policy).unwrap();
    assert_eq!(explicit.chosen_form_note, None);
}

#[test]
fn a_tag_beside_a_digest_is_dropped() {
    let text = format!("r.example/os:1@{DIGEST}");
    let resolved = reference::resolve(&text, &policy(ACCEPT_ANYTHING)).unwrap();
    assert_eq!(resolved.reference.name(), format!("r.example/os@{DIGEST}"));
    assert_eq!(resolved.reference.pinned_digest().as_deref(), Some(DIGEST));
    let again: ImageReference = "ostree-image-signed:docker://r.example/os:1".parse().unwrap();
    let pinned = again.with_digest(DIGEST).unwrap();
    assert_eq!(
        pinned.to_string(),
        format!("ostree-image-signed:docker://r.example/os@{DIGEST}")
    );
    again.with_digest("sha256:12").unwrap_err();
}

#[test]
fn nonsense_is_refused_with_what_would_do() {
    let policy = policy(ACCEPT_ANYTHING);
    for (text, words) in [
        ("", "empty"),
        ("docker://", "empty"),
        ("docker-daemon:os:1", "transport"),
        ("ftp://r.example/os", "transport"),
        ("tarball:/srv/os.tar", "transport"),
        ("unknown:/srv/os", "transport"),
        ("ostree-unverified-image:os", "transport"),
        ("ostree-unverified-image:docker-daemon:os:1", "transport"),
        ("ostree-image-signed:r.example/os:1", "transport"),
        ("ostree-something:r.example/os", "transport"),
        ("ostree-unverified-image:docker:r.example/os", "slashes"),
        ("ostree-remote-image:docker", "remote"),
        ("r.example/Debian", "upper case"),
        ("r.example/my os", "space"),
        ("dir:/srv/a\nb", "control"),
    ] {
        let error = reference::resolve(text, &policy).expect_err(text);
        let fault = Fault::find(&error).unwrap();
        assert_eq!(fault.kind, Kind::Usage, "{text}");
        assert!(fault.message.contains(words), "{text}: {fault}");
        if words == "transport" {
            assert!(
                fault.hint.as_deref().unwrap().contains("containers-storage"),
                "{text}"
            );
        }
    }
}

#[test]
fn the_store_ref_is_the_one_of_ostree_ext() {
    let reference: ImageReference = "ostree-unverified-registry:quay.io/org/img:tag".parse().unwrap();
    assert_eq!(
        reference.store_ref().unwrap(),
        "ostree/container/image/docker_3A__2F__2F_quay_2E_io/org/img_3A_tag"
    );
}

#[test]
fn enforcement_is_never_dropped_silently() {
    let loose = policy(ACCEPT_ANYTHING);
    let strict = policy(
        r#"{"default": [{"type": "insecureAcceptAnything"}],
            "transports": {"docker": {"r.example": [{"type": "signedBy", "keyType": "GPGKeys", "keyPath": "/k"}]}}}"#,
    );
    let signed: ImageReference = "ostree-image-signed:docker://r.example/os:1".parse().unwrap();
    let follow = |text: &str, policy: &Policy, current: &ImageReference| {
        reference::follow(Some(current), reference::resolve(text, policy).unwrap())
    };
    let kept = follow("r.example/os:2", &strict, &signed).unwrap();
    assert_eq!(
        kept.reference.to_string(),
        "ostree-image-signed:docker://r.example/os:2"
    );
    for text in ["r.example/os:2", "docker://r.example/os:2", "oci:/srv/os"] {
        let error = follow(text, &loose, &signed).unwrap_err();
        let fault = Fault::find(&error).unwrap();
        assert_eq!(fault.kind, Kind::Denied);
        assert!(
            fault.hint.as_deref().unwrap().contains("ostree-unverified-"),
            "{fault:?}"
        );
    }
    // Named in full, giving up verification is the user's own decision.
    let explicit = follow("ostree-unverified-registry:r.example/os:2", &loose, &signed).unwrap();
    assert!(!explicit.reference.requires_signature());
    let unsigned: ImageReference = "ostree-unverified-registry:r.example/os:1".parse().unwrap();
    follow("r.example/os:2", &loose, &unsigned).unwrap();
    reference::follow(None, reference::resolve("r.example/os:2", &loose).unwrap()).unwrap();
}

#[test]
fn the_most_specific_scope_decides() {
    let signed = r#"[{"type": "signedBy", "keyType": "GPGKeys", "keyPath": "/k"}]"#;
    let accept = r#"[{"type": "insecureAcceptAnything"}]"#;
    let reject = r#"[{"type": "reject"}]"#;
    let text = format!(
        r#"{{"default": {reject}, "transports": {{
            "docker": {{
                "a.example": {signed}, "a.example/free": {accept}, "a.example/free/os:bad": {reject},
                "a.example:5000": {accept}, "*.wild.example": {signed}, "docker.io/library/debian": {signed}
            }},
            "oci": {{"": {accept}, "/nonexistent/signed": {signed}}},
            "docker-archive": {{"/nonexistent": {signed}}},
            "containers-storage": {{"[overlay@/s]localhost/os": {signed}, "": {accept}}}
        }}}}"#
    );
    let policy = policy(&text);
    for (name, verdict) in [
        ("docker://a.example/os:1", Verdict::DemandsSignature),
        ("docker://a.example/free/os:1", Verdict::AcceptsAnything),
        ("docker://a.example/free/os:bad", Verdict::Rejects),
        ("docker://a.example/freedom", Verdict::DemandsSignature),
        ("docker://a.example:5000/os", Verdict::AcceptsAnything),
        ("docker://x.y.wild.example/os", Verdict::DemandsSignature),
        ("docker://wild.example/os", Verdict::Rejects),
        ("docker://debian:13", Verdict::DemandsSignature),
        ("docker://ubuntu", Verdict::Rejects),
        ("oci:/srv/os:1", Verdict::AcceptsAnything),
        ("oci:/nonexistent/signed/os:1", Verdict::DemandsSignature),
        ("docker-archive:/nonexistent/os.tar", Verdict::Rejects),
        ("dir:/srv/os", Verdict::Rejects),
        ("containers-storage:localhost/os:1", Verdict::DemandsSignature),
        ("containers-storage:localhost/other", Verdict::AcceptsAnything),
    ] {
        let reference: ImageReference = format!("ostree-unverified-image:{name}").parse().unwrap();
        assert_eq!(policy.verdict(&reference), verdict, "{name}");
    }
}

#[test]
fn policies_that_skopeo_would_refuse_are_refused() {
    for text in [
        "",
        "[]",
        "{}",
        r#"{"default": []}"#,
        r#"{"default": [{"type": "whatever"}]}"#,
        r#"{"default": [{"type": "reject"}], "transport": {}}"#,
        r#"{"default": [{"type": "reject"}], "transports": {"docker": {"a": []}}}"#,
    ] {
        let fault = Policy::parse(Path::new("/policy.json"), text.as_bytes()).expect_err(text);
        assert_eq!(fault.kind, Kind::Invalid, "{text}");
        assert!(fault.message.contains("/policy.json"));
    }
}

#[test]
fn the_policy_of_the_user_goes_before_that_of_the_system() {
    let home = Home::new();
    let path = home.policy(ACCEPT_ANYTHING);
    assert_eq!(Policy::load_in(&home.surroundings()).unwrap().path(), path);
}
