//! Whom a registry's certificate must come from, and what this host shows for itself: containers-certs.d(5).
//!
//! The authorities are those that skopeo takes, which is a program in Go: the system's bundle and folder, or what
//! `SSL_CERT_FILE` and `SSL_CERT_DIR` name. Each registry may have more of them, and a client certificate, in the first
//! folder of its own that exists below `certs.d`.

use crate::fault::{Fault, Kind};
use crate::host::surroundings::Surroundings;
use anyhow::{Context, Result};
use openssl::error::ErrorStack;
use openssl::pkey::PKey;
use std::collections::HashSet;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use ureq::tls::{Certificate, ClientCert, PemItem, PrivateKey, RootCerts, TlsConfig, TlsProvider, parse_pem};

/// The authorities that all registries share.
pub(super) struct Authorities {
    system: Vec<Certificate<'static>>,
    folders: Vec<PathBuf>,
}

impl Authorities {
    /// Reads the authorities of the system.
    pub(super) fn load(surroundings: &Surroundings) -> Self {
        let file = surroundings
            .path("SSL_CERT_FILE")
            .unwrap_or_else(|| PathBuf::from("/etc/ssl/certs/ca-certificates.crt"));
        let named = surroundings.path("SSL_CERT_DIR");
        let folders: Vec<PathBuf> = match &named {
            Some(named) => std::env::split_paths(named).collect(),
            None => vec![PathBuf::from("/etc/ssl/certs")],
        };
        let in_folders = folders
            .iter()
            .filter_map(|folder| std::fs::read_dir(folder).ok())
            .flatten()
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|file| !is_alias(file));
        let mut known = HashSet::new();
        let system = std::iter::once(file)
            .chain(in_folders)
            // As everywhere, what cannot be read or is no certificate vouches for nobody.
            .filter_map(|file| std::fs::read(file).ok())
            .flat_map(|text| certificates(&text))
            .filter(|certificate| known.insert(certificate.der().to_vec()))
            .collect();
        let home = surroundings.home();
        let folders = home
            .map(|home| home.join(".config/containers/certs.d"))
            .into_iter()
            .chain(["/etc/containers/certs.d", "/etc/docker/certs.d"].map(PathBuf::from))
            .collect();
        Self { system, folders }
    }

    /// Returns how connections to the registry `host`, with its port where the name has one, are secured.
    ///
    /// Fails when its folder cannot be read, and when a client certificate lacks its key or a key its certificate.
    pub(super) fn tls(&self, host: &str, insecure: bool) -> Result<TlsConfig> {
        let mut roots = self.system.clone();
        let mut client = None;
        let folder = self.folders.iter().map(|folder| folder.join(host));
        if let Some(folder) = folder.into_iter().find(|folder| folder.is_dir()) {
            for file in files(&folder)? {
                let with = |extension: &str| {
                    let other = file.with_extension(extension);
                    match other.exists() {
                        true => Ok(other),
                        false => Err(incomplete(&file, &other)),
                    }
                };
                match file.extension().and_then(|extension| extension.to_str()) {
                    Some("crt") => match std::fs::read(&file) {
                        Ok(text) => roots.extend(certificates(&text)),
                        // A link that leads nowhere.
                        Err(error) if error.kind() == ErrorKind::NotFound => {}
                        Err(error) => {
                            return Err(error).with_context(|| format!("Reading {}", file.display()));
                        }
                    },
                    Some("cert") if client.is_none() => client = Some(identity(&file, &with("key")?)?),
                    Some("key") => drop(with("cert")?),
                    _ => {}
                }
            }
        }
        Ok(TlsConfig::builder()
            .provider(TlsProvider::NativeTls)
            .root_certs(RootCerts::new_with_certs(&roots))
            .client_cert(client)
            .disable_verification(insecure)
            .build())
    }
}

/// Returns whether a file is a link to another one of its folder: each authority has one by its hash as well.
fn is_alias(file: &Path) -> bool {
    std::fs::read_link(file).is_ok_and(|target| target.components().count() == 1)
}

fn certificates(text: &[u8]) -> Vec<Certificate<'static>> {
    parse_pem(text)
        .filter_map(|item| match item {
            Ok(PemItem::Certificate(certificate)) => Some(certificate),
            _ => None,
        })
        .collect()
}

fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let context = || format!("Reading {}", folder.display());
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(context)? {
        files.push(entry.with_context(context)?.path());
    }
    files.sort();
    Ok(files)
}

fn incomplete(file: &Path, other: &Path) -> Fault {
    Fault::new(
        Kind::Invalid,
        format!("{} lacks its other half, {}", file.display(), other.display()),
    )
    .hint("see containers-certs.d(5)")
}

/// Reads a client certificate and its key, which is nowhere repeated.
fn identity(certificate: &Path, key: &Path) -> Result<ClientCert> {
    let read = |path: &Path| std::fs::read(path).with_context(|| format!("Reading {}", path.display()));
    let invalid = |path: &Path| Fault::new(Kind::Invalid, format!("{} is not valid", path.display()));
    let chain = certificates(&read(certificate)?);
    if chain.is_empty() {
        return Err(invalid(certificate).into());
    }
    // Keys come in several shapes, of which the TLS library takes one. Nobody is asked for the password of a key.
    let key_text = read(key)?;
    let plain = PKey::private_key_from_pem_callback(&key_text, |_| Err(ErrorStack::get()))
        .and_then(|key| key.private_key_to_pem_pkcs8())
        .map_err(|_| invalid(key))?;
    let key = PrivateKey::from_pem(&plain).map_err(|_| invalid(key))?;
    Ok(ClientCert::new_with_certs(&chain, key))
}
