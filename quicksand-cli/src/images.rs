//! `quicksand images`: what machines start from.

use std::{path::Path, process::ExitCode};

use quicksand_core::{
    Reporter, Size,
    cache::Cache,
    images::{Image, ImageInfo, ensure, ensure_disk, import_as, list, pull, push, remove, show, update},
};
use serde_json::{Value, json};

use crate::{
    args::ImagesCommand,
    failure::{Failure, Result},
    share,
    show::{self as print, ago, json as print_json, size, table, timestamp},
};

/// Carries out one of the commands.
pub(crate) async fn images(command: ImagesCommand) -> Result {
    let cache = Cache::from_environment()?;
    match command {
        ImagesCommand::List(args) => {
            let images = list(&cache)?;
            if args.json {
                print_json(&images.iter().map(value).collect())?;
            } else {
                table(["IMAGE", "SIZE", "SHARED", "MADE", "FROM"], &images.iter().map(row).collect::<Vec<_>>())?;
            }
        }
        ImagesCommand::Pull { name, own: None, .. } => tell(&get(&cache, &name).await?)?,
        ImagesCommand::Pull { name, own, memory } => {
            let pulled = pull(&cache, &name, own.as_deref(), memory.into(), &reporter()).await?;
            share::pulled(pulled.item.name(), &pulled)?;
        }
        ImagesCommand::Push { name, reference, memory } => {
            share::pushed(&name, &push(&cache, &name, &reference, memory.into(), &reporter()).await?)?;
        }
        ImagesCommand::Import { file, name } => tell(&import_as(&cache, &file, &name, &reporter()).await?)?,
        ImagesCommand::Show { name, list } => {
            let info = show(&cache, &name)?.ok_or_else(|| {
                Failure::new(format!("the cache has no image {name:?}"))
                    .hint(format!("`quicksand images pull {name}` gets one that is known"))
            })?;
            if list.json { print_json(&value(&info))? } else { print::print(&details(&info))? }
        }
        ImagesCommand::Remove { names } => {
            for name in names {
                let freed = remove(&cache, &name).await?;
                print::print(&format!("{name}: freed {}\n", size(Size::from_bytes(freed))))?;
            }
        }
        ImagesCommand::Update { names } => {
            let updates = update(&cache, &names, &reporter()).await?;
            for change in updates {
                let told = match &change.before {
                    Some(before) if before.source == change.after.source && before.digest == change.after.digest => {
                        "is the newest".to_owned()
                    }
                    _ => format!("now {}", change.after.source),
                };
                print::print(&format!("{}: {told}\n", change.name))?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// An image by its name, its reference or its file.
async fn get(cache: &Cache, name: &str) -> Result<Image> {
    let is_path = name.starts_with(['.', '/', '~']) || (name.contains('/') && Path::new(name).exists());
    let got = if is_path {
        ensure_disk(cache, Path::new(name), &reporter()).await
    } else {
        ensure(cache, name, &reporter()).await
    };
    Ok(got?)
}

fn reporter() -> Reporter {
    Reporter::new(quicksand_test::show_progress())
}

fn tell(image: &Image) -> Result<()> {
    print::print(&format!("{} {}\n", image.name(), image.digest()))
}

fn source(info: &ImageInfo) -> String {
    info.image.origin().map_or_else(|| "-".to_owned(), |origin| origin.source.clone())
}

fn row(info: &ImageInfo) -> [String; 5] {
    let shared = if info.shared { "yes" } else { "no" };
    [info.image.name().to_owned(), size(Size::from_bytes(info.bytes)), shared.to_owned(), ago(info.made), source(info)]
}

fn details(info: &ImageInfo) -> String {
    let image = &info.image;
    let lines = [
        ("name", image.name().to_owned()),
        ("from", source(info)),
        ("believed for", image.origin().and_then(|origin| origin.trust.clone()).unwrap_or_else(|| "-".to_owned())),
        ("made", timestamp(info.made)),
        ("on the disk", size(Size::from_bytes(info.bytes))),
        ("disk of the guest", size(Size::from_bytes(image.disk_size()))),
        (
            "root",
            format!("{} ({}) {}", image.root_device(), image.file_system(), image.root_flags()).trim_end().to_owned(),
        ),
        ("sha256 of the disk", image.digest().to_owned()),
        ("disk", image.disk().display().to_string()),
        ("kernel", image.kernel().display().to_string()),
    ];
    lines.iter().map(|(title, text)| format!("{title:18}  {text}\n")).collect()
}

fn value(info: &ImageInfo) -> Value {
    let image = &info.image;
    json!({
        "name": image.name(),
        "digest": format!("sha256:{}", image.digest()),
        "source": image.origin().map(|origin| &origin.source),
        "source_digest": image.origin().and_then(|origin| origin.digest.as_ref()),
        "source_trust": image.origin().and_then(|origin| origin.trust.as_ref()),
        "made": timestamp(info.made),
        "bytes": info.bytes,
        "shared": info.shared,
        "disk_bytes": image.disk_size(),
        "file_system": image.file_system(),
        "disk": image.disk(),
        "kernel": image.kernel(),
    })
}
