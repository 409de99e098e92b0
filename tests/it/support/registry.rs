//! A real docker-registry on a free port of the loopback device.

use super::image::{OciImage, blob_path};
use super::{run, write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// A running registry; stopped and removed when dropped.
pub struct Registry {
    directory: TempDir,
    port: u16,
    tls: bool,
    child: Option<Child>,
}

/// How a registry is set up.
#[derive(Default)]
pub struct Setup<'a> {
    /// User and password it asks for.
    pub login: Option<(&'a str, &'a str)>,
    /// The certificate it serves TLS with; plain http without one.
    pub certificate: Option<&'a Certificate>,
    /// The authority that clients must show a certificate of; needs a certificate of its own.
    pub client_authority: Option<&'a Certificate>,
}

impl Registry {
    /// Starts a registry that serves plain http to everybody.
    pub fn start() -> Self {
        Self::start_with(&Setup::default())
    }

    /// Starts a registry as described and waits until it answers.
    pub fn start_with(setup: &Setup<'_>) -> Self {
        let directory = tempfile::tempdir().expect("directory");
        let port = free_port();
        let root = directory.path().display();
        let mut configuration = format!(
            "version: 0.1\nlog:\n  level: warn\nstorage:\n  filesystem:\n    rootdirectory: {root}/storage\n  \
             delete:\n    enabled: true\nhttp:\n  addr: 127.0.0.1:{port}\n"
        );
        if let Some(certificate) = setup.certificate {
            configuration += &format!(
                "  tls:\n    certificate: {}\n    key: {}\n",
                certificate.file().display(),
                certificate.key().display()
            );
        }
        if let Some(authority) = setup.client_authority {
            configuration += &format!("    clientcas:\n      - {}\n", authority.file().display());
        }
        if let Some((user, password)) = setup.login {
            let entry = run("htpasswd", ["-nbB", user, password]);
            write(directory.path().join("htpasswd"), entry);
            configuration += &format!("auth:\n  htpasswd:\n    realm: test\n    path: {root}/htpasswd\n");
        }
        write(directory.path().join("config.yml"), configuration);
        let mut registry = Self {
            directory,
            port,
            tls: setup.certificate.is_some(),
            child: None,
        };
        registry.resume();
        registry
    }

    /// Returns the registry's location, `127.0.0.1:PORT`.
    pub fn location(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Returns the registry's port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Returns skopeo's name of an image in this registry.
    pub fn name(&self, image: &str) -> String {
        format!("docker://{}/{image}", self.location())
    }

    /// Returns the reference by which a host follows an image here, without signature.
    pub fn reference(&self, image: &str) -> String {
        format!("ostree-unverified-registry:{}/{image}", self.location())
    }

    /// Stops the registry; what it stores stays.
    pub fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("kill");
            child.wait().expect("wait");
        }
    }

    /// Starts the registry again on the same port.
    #[expect(clippy::disallowed_methods, reason = "a server is not run to its end")]
    pub fn resume(&mut self) {
        let log = std::fs::File::create(self.directory.path().join("log")).expect("log");
        let child = std::process::Command::new("docker-registry")
            .arg("serve")
            .arg(self.directory.path().join("config.yml"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("docker-registry");
        self.child = Some(child);
        wait_for(self.port);
    }

    /// Puts an image where the registry keeps its own, under the tag `latest`: quicker than to push it.
    pub fn adopt(&self, image: &OciImage, name: &str) {
        let read = |digest: &str| std::fs::read(blob_path(&image.path, digest)).expect("blob");
        let manifest = read(&image.manifest_digest);
        let described: serde_json::Value = serde_json::from_slice(&manifest).expect("manifest");
        let root = self
            .directory
            .path()
            .join("storage/docker/registry/v2/repositories")
            .join(name);
        let layers = described["layers"].as_array().expect("layers");
        for blob in layers.iter().chain([&described["config"]]) {
            let digest = blob["digest"].as_str().expect("digest");
            write(self.blob(digest), read(digest));
            let (algorithm, hex) = digest.split_once(':').expect("digest");
            write(
                root.join("_layers").join(algorithm).join(hex).join("link"),
                digest,
            );
        }
        write(self.blob(&image.manifest_digest), manifest);
        let (algorithm, hex) = image.manifest_digest.split_once(':').expect("digest");
        let manifests = root.join("_manifests");
        for link in ["revisions", "tags/latest/index"] {
            let link = manifests.join(link).join(algorithm).join(hex).join("link");
            write(link, &image.manifest_digest);
        }
        write(manifests.join("tags/latest/current/link"), &image.manifest_digest);
    }

    /// Returns the file in which the registry keeps a blob, to be damaged.
    pub fn blob(&self, digest: &str) -> PathBuf {
        let (algorithm, hex) = digest.split_once(':').expect("digest");
        self.directory
            .path()
            .join("storage/docker/registry/v2/blobs")
            .join(algorithm)
            .join(&hex[..2])
            .join(hex)
            .join("data")
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Returns a port of the loopback device that nobody uses at this moment.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("port");
    listener.local_addr().expect("address").port()
}

/// Waits until something listens on the port.
pub fn wait_for(port: u16) {
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let start = Instant::now();
    while TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_err() {
        assert!(
            start.elapsed() < Duration::from_secs(20),
            "nothing listens on {port}"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A self-signed certificate for 127.0.0.1.
pub struct Certificate {
    directory: TempDir,
}

impl Certificate {
    /// Makes a certificate that is valid now.
    pub fn valid() -> Self {
        Self::make(&["-days", "2"])
    }

    /// Makes a certificate that was valid for one day years ago.
    pub fn expired() -> Self {
        Self::make(&["-not_before", "20200101000000Z", "-not_after", "20200102000000Z"])
    }

    fn make(validity: &[&str]) -> Self {
        let directory = tempfile::tempdir().expect("directory");
        let certificate = Self { directory };
        let (key, request) = (certificate.key(), certificate.path("request.pem"));
        let text = |path: &Path| path.to_str().expect("UTF-8").to_owned();
        write(
            certificate.path("ca.cnf"),
            "[ca]\ndefault_ca=own\n[own]\ndatabase=index\nnew_certs_dir=.\nserial=serial\ndefault_md=sha256\n\
             policy=any\nx509_extensions=extensions\ncopy_extensions=none\n[any]\ncommonName=supplied\n\
             [extensions]\nsubjectAltName=IP:127.0.0.1\nbasicConstraints=critical,CA:TRUE\n",
        );
        write(certificate.path("index"), "");
        write(certificate.path("serial"), "01\n");
        run(
            "openssl",
            [
                "req",
                "-newkey",
                "rsa:2048",
                "-nodes",
                "-subj",
                "/CN=127.0.0.1",
                "-keyout",
                &text(&key),
                "-out",
                &text(&request),
            ],
        );
        // `openssl x509` of Debian 12 cannot date a certificate back, `openssl ca` can.
        let validity: Vec<&str> = validity
            .iter()
            .map(|word| match *word {
                "-not_before" => "-startdate",
                "-not_after" => "-enddate",
                other => other,
            })
            .collect();
        apt_ostree::host::runner::Cmd::new("openssl")
            .args([
                "ca",
                "-batch",
                "-notext",
                "-config",
                "ca.cnf",
                "-selfsign",
                "-keyfile",
                "key.pem",
            ])
            .args(["-in", "request.pem", "-out", "certificate.pem"])
            .args(validity)
            .current_dir(certificate.directory.path())
            .run()
            .unwrap_or_else(|error| panic!("{error:#}"));
        certificate
    }

    /// Puts a valid certificate in the place of this one, for a registry that is started again.
    pub fn renew(&self) {
        let valid = Self::valid();
        std::fs::copy(valid.file(), self.file()).expect("certificate");
        std::fs::copy(valid.key(), self.key()).expect("key");
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Returns the certificate's file.
    pub fn file(&self) -> PathBuf {
        self.path("certificate.pem")
    }

    /// Returns the key's file.
    pub fn key(&self) -> PathBuf {
        self.path("key.pem")
    }
}
