//! A registry of artifacts, on a free port of this machine: Debian's `docker-registry`.

use std::io::{BufRead as _, BufReader, ErrorKind};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use oci_client::client::{Client, ClientConfig, ClientProtocol, Config, ImageLayer};
use oci_client::manifest::{
    ImageIndexEntry, OCI_IMAGE_INDEX_MEDIA_TYPE, OCI_IMAGE_MEDIA_TYPE, OciImageIndex, OciImageManifest, OciManifest,
};
use oci_client::secrets::RegistryAuth;
use oci_client::{Reference, RegistryOperation};
use tempfile::TempDir;

/// Set to 1: the tests that need a registry are left out.
const WITHOUT: &str = "GRISTMILL_WITHOUT_REGISTRY";
pub(crate) const USER: &str = "miller";
pub(crate) const PASSWORD: &str = "cog";
/// The password as `htpasswd -B` writes it.
const HTPASSWD: &str = "miller:$2b$05$abcdefghijklmnopqrstuulGrKxdZtUKnriOB1kgsflQ4H.CNsJQ.\n";
const CONFIG_TYPE: &str = "application/vnd.wasm.config.v0+json";

/// Ends when dropped.
pub(crate) struct Registry {
    child: Child,
    folder: TempDir,
    pub(crate) address: SocketAddr,
    auth: RegistryAuth,
}

/// Who may read from a registry.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    Everybody,
    Miller,
}

impl Registry {
    /// `None` where such tests are to be left out.
    pub(crate) fn start(access: Access) -> Option<Self> {
        if std::env::var(WITHOUT).as_deref() == Ok("1") {
            eprintln!("LEFT OUT, because {WITHOUT} is 1: a test against a real registry");
            return None;
        }
        let folder = TempDir::new().unwrap();
        let root = folder.path().join("data");
        let mut config = format!(
            "version: 0.1\nlog: {{ level: info }}\nhttp: {{ addr: \"127.0.0.1:0\" }}\n\
             storage: {{ filesystem: {{ rootdirectory: {root:?} }} }}\n"
        );
        let mut auth = RegistryAuth::Anonymous;
        if access == Access::Miller {
            let users = folder.path().join("htpasswd");
            std::fs::write(&users, HTPASSWD).unwrap();
            config += &format!("auth: {{ htpasswd: {{ realm: mill, path: {users:?} }} }}\n");
            auth = RegistryAuth::Basic(USER.to_owned(), PASSWORD.to_owned());
        }
        let file = folder.path().join("config.yml");
        std::fs::write(&file, config).unwrap();
        let mut command = Command::new("docker-registry");
        command.arg("serve").arg(&file).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = match command.spawn() {
            Ok(child) => child,
            Err(error) if error.kind() == ErrorKind::NotFound => panic!(
                "this test needs a registry, and there is no `docker-registry` in the PATH.\n\
                 Debian and Ubuntu: apt-get install docker-registry. Where there is none, {WITHOUT}=1 leaves such tests out."
            ),
            Err(error) => panic!("docker-registry: {error}"),
        };
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let address = lines.by_ref().map(Result::unwrap).find_map(|line| {
            let (_, rest) = line.split_once("listening on ")?;
            rest.split(['"', ' ']).next()?.parse().ok()
        });
        // It would wait for somebody to read what it says.
        std::thread::spawn(move || lines.for_each(drop));
        Some(Self { child, folder, address: address.expect("where the registry listens"), auth })
    }

    /// Nobody answers at its address from now on.
    pub(crate) fn stop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// What a handler says of the artifact: `tag` is all behind the name.
    pub(crate) fn component(&self, tag: &str) -> String {
        format!("oci://{}/acme/acker{tag}", self.address)
    }

    /// Pushes a component as the CNCF's guidance lays it out; the digest of the manifest.
    pub(crate) fn push(&self, tag: &str, component: &[u8]) -> String {
        self.push_layers(tag, &[(component, "application/wasm")], |_| ())
    }

    /// Pushes these layers, each with its type. The manifest may be changed before.
    pub(crate) fn push_layers(
        &self,
        tag: &str,
        layers: &[(&[u8], &str)],
        change: impl FnOnce(&mut OciImageManifest),
    ) -> String {
        let layer = |(data, ty): &(&[u8], &str)| ImageLayer::new(data.to_vec(), (*ty).to_owned(), None);
        let layers: Vec<_> = layers.iter().map(layer).collect();
        let config = Config::new("{}", CONFIG_TYPE.to_owned(), None);
        let mut manifest = OciImageManifest::build(&layers, &config, None);
        change(&mut manifest);
        let reference = self.reference(tag);
        self.run(async |client| {
            client.push(&reference, &layers, config, &self.auth, Some(manifest)).await.unwrap();
            client.fetch_manifest_digest(&reference, &self.auth).await.unwrap()
        })
    }

    /// Pushes an index of a manifest that is there already.
    pub(crate) fn push_index(&self, tag: &str, manifest: &str) {
        let reference = self.reference(tag);
        self.run(async |client| {
            client.auth(&reference, &self.auth, RegistryOperation::Push).await.unwrap();
            let of = self.reference(manifest);
            let (bytes, digest) = client.pull_manifest_raw(&of, &self.auth, &[OCI_IMAGE_MEDIA_TYPE]).await.unwrap();
            let entry = serde_json::json!({
                "mediaType": OCI_IMAGE_MEDIA_TYPE, "digest": digest, "size": bytes.len(),
                "platform": { "architecture": "amd64", "os": "linux" },
            });
            let entry: ImageIndexEntry = serde_json::from_value(entry).unwrap();
            let index = OciImageIndex {
                schema_version: 2,
                media_type: Some(OCI_IMAGE_INDEX_MEDIA_TYPE.to_owned()),
                manifests: vec![entry],
                artifact_type: None,
                annotations: None,
            };
            client.push_manifest(&reference, &OciManifest::ImageIndex(index)).await.unwrap();
        });
    }

    /// Where the registry keeps the bytes with this digest.
    pub(crate) fn blob(&self, digest: &str) -> PathBuf {
        let digits = digest.strip_prefix("sha256:").unwrap();
        let blobs = self.folder.path().join("data/docker/registry/v2/blobs/sha256");
        blobs.join(&digits[..2]).join(digits).join("data")
    }

    fn reference(&self, tag: &str) -> Reference {
        Reference::with_tag(self.address.to_string(), "acme/acker".to_owned(), tag.to_owned())
    }

    fn run<T>(&self, work: impl AsyncFnOnce(&Client) -> T) -> T {
        gristmill::tls::use_ring();
        let client = Client::new(ClientConfig { protocol: ClientProtocol::Http, ..ClientConfig::default() });
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work(&client))
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
