//! Atomic replacement of files.

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

/// The file that the links at `path` lead to, also if it is not there yet. `path` itself if it is
/// no link. To keep the links, replace this file: replacing `path` would replace a link.
pub fn behind_links(path: &Path) -> PathBuf {
    let mut path = path.to_owned();
    // More links than a system follows lead in a circle.
    for _ in 0..40 {
        let Ok(to) = std::fs::read_link(&path) else { break };
        path = match path.parent() {
            Some(folder) => folder.join(to),
            None => to,
        };
    }
    path
}

/// The end of an unfinished file's name.
const PARTIAL: &str = ".partial";

/// A file that is not finished. No two writers share one, and its writer holds its lock. It is
/// removed when it is dropped before it has [replaced](Self::replace) another one.
#[derive(Debug)]
pub struct Partial {
    file: File,
    path: PathBuf,
    /// The place that the file will take. None after it has taken it.
    place: Option<PathBuf>,
}

impl Partial {
    /// A new file beside the one that `path` leads to, with a name of its own. Unfinished files
    /// that killed writers of the same file have left are removed.
    ///
    /// # Errors
    /// The system's. `InvalidInput` if `path` names no file.
    pub fn new(path: &Path) -> io::Result<Self> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let path = &behind_links(path);
        let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
        // `name/` and `name/.` are folders.
        let ends = path.as_os_str().as_encoded_bytes().ends_with(name.as_encoded_bytes());
        if !ends {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let name = cut(&name.to_string_lossy()).to_owned();
        // If they cannot be removed, they stay.
        let _ = remove_abandoned(folder_of(path), Some(&name));
        loop {
            let count = COUNT.fetch_add(1, Ordering::Relaxed);
            let own = format!("{name}.{}-{count}{PARTIAL}", std::process::id());
            let own = path.with_file_name(own);
            match File::create_new(&own) {
                Ok(file) => {
                    let partial = Self { file, path: own, place: Some(path.clone()) };
                    // Until the lock is taken, another writer may take this file for an abandoned
                    // one and remove it. On a file system without locks nothing is ever removed.
                    let locked = partial.file.lock().is_ok();
                    if !locked || partial.path.exists() {
                        return Ok(partial);
                    }
                }
                // A killed process with the same number has left it, on a file system without
                // locks.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => (),
                Err(error) => return Err(error),
            }
        }
    }

    /// The file to write to.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Forces what was written to the disk.
    ///
    /// # Errors
    /// The system's.
    pub fn sync(&self) -> io::Result<()> {
        self.file.sync_all()
    }

    /// Takes the place of the file that was there.
    ///
    /// # Errors
    /// The system's. That file stays then.
    pub fn replace(mut self) -> io::Result<()> {
        if let Some(place) = &self.place {
            std::fs::rename(&self.path, place)?;
            sync_folder(place);
        }
        self.place = None;
        Ok(())
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        if self.place.is_some() {
            // As far as that is possible; the next writer tries again.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Removes the partial files in a folder whose writers are gone: those that no process has locked.
/// If `of` is given, only those that were to become the file of that name.
///
/// # Errors
/// The system's, if the folder cannot be read. A file that cannot be removed stays.
pub fn remove_abandoned(folder: &Path, of: Option<&str>) -> io::Result<()> {
    for entry in std::fs::read_dir(folder)?.flatten() {
        let name = entry.file_name();
        let is_partial = name
            .to_str()
            .and_then(finished)
            .is_some_and(|finished| of.is_none_or(|of| finished == of));
        if !is_partial {
            continue;
        }
        if let Ok(file) = File::open(entry.path())
            && file.try_lock().is_ok()
        {
            let _ = std::fs::remove_file(entry.path());
        }
    }
    Ok(())
}

/// As much of a name as leaves room for what is added to it: a file's name has at most 255 bytes.
/// Unfinished files of two such names may then look alike. A writer still has its own, by its lock
/// and its number.
fn cut(name: &str) -> &str {
    let mut end = name.len().min(200);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    name.get(..end).unwrap_or(name)
}

/// The name that a partial file of this name will have: `run` of `run.17-0.partial`.
fn finished(partial: &str) -> Option<&str> {
    let (finished, writer) = partial.strip_suffix(PARTIAL)?.rsplit_once('.')?;
    let (process, count) = writer.split_once('-')?;
    (is_number(process) && is_number(count)).then_some(finished)
}

fn is_number(word: &str) -> bool {
    !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_digit())
}

fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// Lets the new name outlive a power failure, on file systems that can.
fn sync_folder(path: &Path) {
    let _ = File::open(folder_of(path)).and_then(|folder| folder.sync_all());
}
