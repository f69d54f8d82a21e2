//! Files that are written whole, in a folder that one program at a time holds.

use super::ReportError;
use std::{
    fs::{self, File, TryLockError},
    io::{self, Write},
    path::{Path, PathBuf},
};
use tlr::__private::{behind_links, remove_abandoned, Partial};

/// The file that a program locks to hold the folder. It stays there, unlocked once the program has
/// ended.
const LOCK: &str = ".lock";

/// A folder for results, held until it is dropped: no other program claims it in the meantime.
///
/// ```
/// use tlr_models::report::{self, OutFolder, ReportError};
///
/// let dir = tempfile::tempdir()?;
/// let out = OutFolder::claim(&dir.path().join("runs/first"))?;
/// report::write(&out.file("notes.txt"), "it went well")?;
/// assert!(matches!(OutFolder::claim(out.path()), Err(ReportError::InUse { .. })));
/// assert_eq!(OutFolder::of_another(out.path()).path(), out.path());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct OutFolder {
    path: PathBuf,
    /// None if another process holds it.
    _held: Option<Held>,
}

/// A file that is locked until this is dropped. It stays there.
#[derive(Debug)]
pub(crate) struct Held {
    _open: File,
}

impl Held {
    /// Locks a file of the same name with [`LOCK`] beside the one that `path` leads to.
    pub(crate) fn beside(path: &Path) -> io::Result<Option<Self>> {
        let place = behind_links(path);
        let name = place.file_name().unwrap_or_default().to_string_lossy();
        Self::try_new(&place.with_file_name(format!(".{name}{LOCK}")))
    }

    /// Makes and locks the file; none if another program holds it. A file system that knows no
    /// locks does not keep others away.
    fn try_new(path: &Path) -> io::Result<Option<Self>> {
        let mut options = File::options();
        // Read as well: some network file systems lock nothing that can only be written.
        options.read(true).write(true).create(true).truncate(false);
        let mut file = options.open(path)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => {}
            Err(TryLockError::Error(error)) => return Err(error),
        }
        // On a full disk a new file can be made, but nothing can be written to it.
        file.set_len(0)?;
        file.write_all(format!("{}\n", std::process::id()).as_bytes())?;
        file.sync_data()?;
        Ok(Some(Self { _open: file }))
    }
}

impl OutFolder {
    /// Makes the folder if need be, sees whether it can be written to, and holds it. A file system
    /// that knows no locks does not keep others away. Unfinished files that a killed program has
    /// left in it are removed.
    ///
    /// # Errors
    /// [`ReportError::Io`], and [`ReportError::InUse`] if another program holds it.
    ///
    /// Example: [`OutFolder`].
    pub fn claim(path: &Path) -> Result<Self, ReportError> {
        let failed = |source| ReportError::Io { path: path.to_owned(), source };
        fs::create_dir_all(path).map_err(failed)?;
        let held = Held::try_new(&path.join(LOCK)).map_err(failed)?;
        let held = held.ok_or_else(|| ReportError::InUse { path: path.to_owned() })?;
        remove_abandoned(path, None).map_err(failed)?;
        Ok(Self { path: path.to_owned(), _held: Some(held) })
    }

    /// The folder of another process of the same run, in which this one writes nothing.
    ///
    /// Example: [`OutFolder`].
    pub fn of_another(path: &Path) -> Self {
        Self { path: path.to_owned(), _held: None }
    }

    /// The folder's path.
    ///
    /// Example: [`OutFolder`].
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The path of a file in it.
    ///
    /// Example: [`OutFolder`].
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }
}

/// Writes a new file in the same folder, forces it to the disk, and renames it: the old file stays,
/// or is replaced as a whole. A link stays, and the file that it leads to is replaced.
///
/// # Errors
/// [`ReportError::Io`].
///
/// # Example
/// ```
/// let dir = tempfile::tempdir()?;
/// let path = dir.path().join("table.md");
/// tlr_models::report::write(&path, "| rate |")?;
/// assert_eq!(std::fs::read_to_string(&path)?, "| rate |");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn write(path: &Path, contents: impl AsRef<[u8]>) -> Result<(), ReportError> {
    let written = Partial::new(path).and_then(|partial| {
        partial.file().write_all(contents.as_ref())?;
        partial.sync()?;
        partial.replace()
    });
    written.map_err(|source| ReportError::Io { path: path.to_owned(), source })
}

/// Rows of cells, the first of which are headings, as a file of CSV.
pub(super) fn write_csv<R: AsRef<[String]>>(path: &Path, rows: &[R]) -> Result<(), ReportError> {
    let failed = |source| ReportError::Io { path: path.to_owned(), source };
    let mut writer = csv::Writer::from_writer(Vec::new());
    for row in rows {
        writer.write_record(row.as_ref()).map_err(|error| failed(error.into()))?;
    }
    write(path, writer.into_inner().map_err(|error| failed(error.into_error()))?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_folder_is_held_until_it_is_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b");
        let held = OutFolder::claim(&path).unwrap();
        let error = OutFolder::claim(&path).unwrap_err();
        assert!(matches!(&error, ReportError::InUse { path: of } if *of == path), "{error}");
        drop(held);
        // A file that a killed program has not finished goes. A user's own stay, and so does one
        // that another run is writing here.
        let users = ["mine.partial", ".mine", "mine.1.partial", "run.safetensors.17-0.partial"];
        for name in users.into_iter().chain(["best.safetensors.17-0.partial"]) {
            fs::write(path.join(name), "begun").unwrap();
        }
        let writing = File::open(path.join("run.safetensors.17-0.partial")).unwrap();
        writing.lock().unwrap();
        let again = OutFolder::claim(&path).unwrap();
        assert!(!path.join("best.safetensors.17-0.partial").exists());
        assert!(users.iter().all(|name| path.join(name).exists()));
        assert_eq!(again.file("x"), path.join("x"));
    }

    // Fails if a link to a checkpoint that is not there yet and the checkpoint's own name are two
    // places: two new runs would write one file.
    #[test]
    #[cfg(unix)]
    fn a_link_that_leads_nowhere_yet_is_held_where_it_leads() {
        let dir = tempfile::tempdir().unwrap();
        let (link, target) = (dir.path().join("link"), dir.path().join("target"));
        std::os::unix::fs::symlink("target", &link).unwrap();
        let held = Held::beside(&link).unwrap();
        assert!(held.is_some() && Held::beside(&target).unwrap().is_none());
        drop(held);
        assert!(Held::beside(&target).unwrap().is_some());
    }

    #[test]
    fn what_cannot_be_a_folder_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        fs::write(&path, "here").unwrap();
        let error = OutFolder::claim(&path).unwrap_err().to_string();
        assert!(error.contains("file"), "{error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "here");
    }

    // Fails if the old contents are gone before the new ones are there, if something is left, or if
    // a link is replaced.
    #[test]
    fn a_file_is_replaced_or_left() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("table.csv");
        write(&path, "old").unwrap();
        #[cfg(unix)]
        let before = std::os::unix::fs::MetadataExt::ino(&fs::metadata(&path).unwrap());
        write(&path, "new").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "new");
        #[cfg(unix)]
        assert_ne!(std::os::unix::fs::MetadataExt::ino(&fs::metadata(&path).unwrap()), before);
        #[cfg(unix)]
        {
            let link = dir.path().join("link");
            std::os::unix::fs::symlink("table.csv", &link).unwrap();
            write(&link, "newest").unwrap();
            assert!(link.is_symlink());
            assert_eq!(fs::read_to_string(&path).unwrap(), "newest");
            fs::remove_file(&link).unwrap();
        }
        let taken = dir.path().join("taken");
        fs::create_dir_all(taken.join("inside")).unwrap();
        assert!(matches!(write(&taken, "new"), Err(ReportError::Io { .. })));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    }
}
