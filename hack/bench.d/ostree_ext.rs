//! The importer of ostree-ext 0.15.3 as a contender, and its encapsulation as the maker of images that both can read.
//!
//! usage: bench_ostree_ext encapsulate REPO COMMIT OCI_DIRECTORY
//!        bench_ostree_ext import REPO IMAGE                        (IMAGE as ostree-ext writes it)
//!        bench_ostree_ext layer REPO BLOB MEDIA_TYPE REF           (one layer of a plain image)
//!
//! Prints the digest of the image or the commit that was made.

use anyhow::{Context, Result, bail};
use ostree_ext::chunking::ObjectMetaSized;
use ostree_ext::container::store::{ImageImporter, PrepareResult};
use ostree_ext::container::{
    Config, ExportOpts, ImageReference, OstreeImageReference, Transport, encapsulate,
};
use ostree_ext::containers_image_proxy::ImageProxyConfig;
use ostree_ext::gio::{self, Cancellable};
use ostree_ext::objectsource::{ObjectMeta, ObjectSourceMeta};
use ostree_ext::ostree::{Repo, RepoFile};
use ostree_ext::prelude::*;
use ostree_ext::tar::{WriteTarOptions, write_tar};
use std::io::Write;
use std::rc::Rc;

/// Files below the same directory of this depth are one component.
const COMPONENT_DEPTH: usize = 3;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let answer = match arguments[..] {
        ["encapsulate", repo, commit, target] => runtime.block_on(write(repo, commit, target))?,
        ["import", repo, image] => runtime.block_on(import(repo, image))?,
        ["layer", repo, blob, media_type, name] => runtime.block_on(layer(repo, blob, media_type, name))?,
        _ => bail!("usage: bench_ostree_ext encapsulate|import|layer REPO ..."),
    };
    writeln!(std::io::stdout(), "{answer}")?;
    Ok(())
}

fn open(path: &str) -> Result<Repo> {
    let repo = Repo::new_for_path(path);
    repo.open(Cancellable::NONE)?;
    Ok(repo)
}

/// Imports an image and returns the merged commit.
async fn import(repo: &str, image: &str) -> Result<String> {
    let repo = open(repo)?;
    let image: OstreeImageReference = image.parse()?;
    // The registry of the measurement speaks plain HTTP.
    let proxy = ImageProxyConfig {
        insecure_skip_tls_verification: Some(true),
        ..Default::default()
    };
    let mut importer = ImageImporter::new(&repo, &image, proxy).await?;
    let state = match importer.prepare().await? {
        PrepareResult::AlreadyPresent(state) => state,
        PrepareResult::Ready(prepared) => importer.import(prepared).await?,
    };
    Ok(state.merge_commit)
}

/// Commits one layer as the importer does with those of plain images: filtered, and given to `ostree commit --tree=tar`.
async fn layer(repo: &str, blob: &str, media_type: &str, name: &str) -> Result<String> {
    let mut options = WriteTarOptions::default();
    options.allow_nonusr = true;
    options.retain_var = true;
    let blob = tokio::fs::File::open(blob).await?;
    let written = write_tar(&open(repo)?, blob, media_type.into(), name, Some(options)).await?;
    Ok(written.commit)
}

/// Writes a commit as an image of chunks, which are put together from the directories of its tree.
async fn write(repo: &str, commit: &str, target: &str) -> Result<String> {
    let repo = open(repo)?;
    let mut meta = ObjectMeta::default();
    let (root, _) = repo.read_commit(commit, Cancellable::NONE)?;
    let root = root.downcast::<RepoFile>().ok().context("the root of a commit")?;
    assign(&root, 0, "", &mut meta)?;
    let sized = ObjectMetaSized::compute_sizes(&repo, meta)?;
    let mut options = ExportOpts::default();
    options.contentmeta = Some(&sized);
    let config = Config {
        labels: Some([("containers.bootc".to_owned(), "1".to_owned())].into()),
        cmd: None,
    };
    let reference = ImageReference {
        transport: Transport::OciDir,
        name: target.to_owned(),
    };
    Ok(encapsulate(&repo, commit, &config, Some(options), &reference)
        .await?
        .to_string())
}

/// Tells of every file below a directory to which component it belongs.
fn assign(directory: &RepoFile, depth: usize, component: &str, meta: &mut ObjectMeta) -> Result<()> {
    let children = directory.enumerate_children(
        "standard::name,standard::type",
        gio::FileQueryInfoFlags::NOFOLLOW_SYMLINKS,
        Cancellable::NONE,
    )?;
    while let Some(info) = children.next_file(Cancellable::NONE)? {
        let child = children.child(&info);
        let child = child.downcast::<RepoFile>().ok().context("a child of a commit")?;
        if info.file_type() == gio::FileType::Directory {
            let name = if depth < COMPONENT_DEPTH {
                format!("{component}/{}", info.name().display())
            } else {
                component.to_owned()
            };
            assign(&child, depth + 1, &name, meta)?;
        } else {
            let name: Rc<str> = component.into();
            meta.set.insert(ObjectSourceMeta {
                identifier: Rc::clone(&name),
                name: Rc::clone(&name),
                srcid: Rc::clone(&name),
                change_time_offset: 1,
                change_frequency: 1,
            });
            child.ensure_resolved()?;
            meta.map.insert(child.checksum().to_string(), name);
        }
    }
    Ok(())
}
