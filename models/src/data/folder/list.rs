//! Which files of a folder are pictures, and of which class.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsString,
    fmt,
    path::{Path, PathBuf},
};

use crate::data::{AnnotationError, DataError};

/// The endings of pictures' names, in small letters or capitals.
const ENDINGS: [&str; 11] =
    ["bmp", "jfif", "jpe", "jpeg", "jpg", "pbm", "pgm", "png", "pnm", "ppm", "webp"];

/// Tiny ImageNet's list of the pictures to test on, which lie in one folder.
const ANNOTATIONS: &str = "val_annotations.txt";

/// What lies among the pictures of a [`Folder`](super::Folder) and was passed over, by its kind and
/// number: `3 .tif, 1 .txt, 2 without an ending`. Names with a dot in front do not count.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PassedOver(BTreeMap<String, usize>);

impl PassedOver {
    /// How many files there are.
    ///
    /// Example: [`Folder::open`](super::Folder::open).
    pub fn len(&self) -> usize {
        self.0.values().sum()
    }

    /// Whether there are none.
    ///
    /// Example: [`Folder::open`](super::Folder::open).
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn add(&mut self, path: &Path, place: &str) {
        let kind = match path.extension() {
            Some(ending) => format!(".{}", ending.to_string_lossy().to_lowercase()),
            None => "without an ending".to_owned(),
        };
        *self.0.entry(kind + place).or_default() += 1;
    }
}

impl fmt::Display for PassedOver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let each: Vec<_> = self.0.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
        f.write_str(&each.join(", "))
    }
}

/// The pictures of one half, with their labels, sorted by label and then by name.
pub(super) type Labelled = Vec<(PathBuf, usize)>;

/// The classes of `train`, sorted, and its pictures.
pub(super) fn train(
    train: &Path,
    others: &mut PassedOver,
) -> Result<(Vec<OsString>, Labelled), DataError> {
    let classes = classes(train, others)?;
    if classes.is_empty() {
        return Err(DataError::NoPictures { dir: train.to_owned() });
    }
    let mut pictures = Vec::new();
    for (label, class) in classes.iter().enumerate() {
        let found = below(&train.join(class), others)?;
        if found.is_empty() {
            return Err(DataError::NoPictures { dir: train.join(class) });
        }
        pictures.extend(found.into_iter().map(|path| (path, label)));
    }
    Ok((classes, pictures))
}

/// The pictures of `val`, by folders as in `train`; where none is a class, by Tiny ImageNet's list.
pub(super) fn val(
    val: &Path,
    classes: &[OsString],
    others: &mut PassedOver,
) -> Result<Labelled, DataError> {
    let folders = self::classes(val, others)?;
    let list = val.join(ANNOTATIONS);
    let by_list = list.is_file() && !folders.iter().any(|f| classes.binary_search(f).is_ok());
    let mut pictures = Vec::new();
    if by_list {
        pictures = annotated(val, &list, classes, others)?;
    } else {
        for folder in folders {
            let dir = val.join(&folder);
            let Ok(label) = classes.binary_search(&folder) else {
                return Err(DataError::UnknownClass { dir });
            };
            pictures.extend(below(&dir, others)?.into_iter().map(|path| (path, label)));
        }
    }
    if pictures.is_empty() {
        return Err(DataError::NoPictures { dir: val.to_owned() });
    }
    Ok(pictures)
}

/// The pictures of a list with a line for each: its name, its class, and more that does not matter,
/// with a tab between them. They lie in `images/`.
fn annotated(
    val: &Path,
    list: &Path,
    classes: &[OsString],
    others: &mut PassedOver,
) -> Result<Labelled, DataError> {
    let dir = val.join("images");
    let text = std::fs::read_to_string(list).map_err(|source| DataError::Io {
        action: "read",
        path: list.to_owned(),
        source,
    })?;
    let mut pictures = Vec::new();
    for (line, text) in (1..).zip(text.lines()) {
        let wrong = |source| Err(DataError::Annotation { path: list.to_owned(), line, source });
        let mut fields = text.split('\t');
        let (Some(name), Some(class)) = (fields.next(), fields.next()) else {
            return wrong(AnnotationError::NoTab);
        };
        let Ok(label) = classes.binary_search_by(|known| known.as_os_str().cmp(class.as_ref()))
        else {
            return wrong(AnnotationError::UnknownClass(class.to_owned()));
        };
        pictures.push((dir.join(name), label));
    }
    let listed: BTreeSet<&Path> = pictures.iter().map(|(path, _)| path.as_path()).collect();
    for path in below(&dir, others)? {
        if !listed.contains(path.as_path()) {
            others.add(&path, " that the list lacks");
        }
    }
    pictures.sort_by(|(a, left), (b, right)| left.cmp(right).then_with(|| a.cmp(b)));
    Ok(pictures)
}

/// The folders in `dir`, sorted.
fn classes(dir: &Path, others: &mut PassedOver) -> Result<Vec<OsString>, DataError> {
    let mut folders = Vec::new();
    for name in names(dir)? {
        let path = dir.join(&name);
        if path.is_dir() {
            folders.push(name);
        } else if name != ANNOTATIONS {
            others.add(&path, " outside of a class");
        }
    }
    Ok(folders)
}

/// The pictures in `dir` and in the folders below it, sorted. What is called like a picture and is
/// a folder, or a link to nothing, is among them: reading it will fail.
fn below(dir: &Path, others: &mut PassedOver) -> Result<Vec<PathBuf>, DataError> {
    let mut pictures = Vec::new();
    add_below(dir, &mut Vec::new(), &mut pictures, others)?;
    Ok(pictures)
}

/// As [`below`], in a folder that is reached by way of others. A link that leads back to one of
/// them is passed over: the same pictures would be found again and again.
fn add_below(
    dir: &Path,
    way: &mut Vec<PathBuf>,
    pictures: &mut Vec<PathBuf>,
    others: &mut PassedOver,
) -> Result<(), DataError> {
    let failed = |source| DataError::Io { action: "list", path: dir.to_owned(), source };
    let real = dir.canonicalize().map_err(failed)?;
    if way.iter().any(|folder| folder.starts_with(&real)) {
        others.add(dir, " (a link to where it lies)");
        return Ok(());
    }
    way.push(real);
    for name in names(dir)? {
        let path = dir.join(name);
        let ending = path.extension().unwrap_or_default();
        if ENDINGS.iter().any(|known| ending.eq_ignore_ascii_case(known)) {
            pictures.push(path);
        } else if path.is_dir() {
            add_below(&path, way, pictures, others)?;
        } else {
            others.add(&path, "");
        }
    }
    way.pop();
    Ok(())
}

/// A folder that archives made on macOS hold beside their files.
const MACOS: &str = "__MACOSX";

/// The sorted names in `dir`, without hidden ones.
fn names(dir: &Path) -> Result<Vec<OsString>, DataError> {
    let failed = |source| DataError::Io { action: "list", path: dir.to_owned(), source };
    let mut names = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        if !name.as_encoded_bytes().starts_with(b".") && name != MACOS {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

#[cfg(all(test, unix))]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::os::unix::fs::symlink;

    // Fails if two folders that link to each other are gone through again and again.
    #[test]
    fn links_that_lead_back_are_passed_over() {
        let dir = tempfile::tempdir().unwrap();
        for (name, other) in [("a", "../b"), ("b", "../a")] {
            std::fs::create_dir(dir.path().join(name)).unwrap();
            std::fs::write(dir.path().join(name).join("one.png"), "").unwrap();
            symlink(other, dir.path().join(name).join("x")).unwrap();
            symlink("..", dir.path().join(name).join("up")).unwrap();
        }
        let mut others = PassedOver::default();
        let found = below(dir.path(), &mut others).unwrap();
        let names: Vec<_> =
            found.iter().map(|path| path.strip_prefix(dir.path()).unwrap()).collect();
        assert_eq!(names, ["a/one.png", "a/x/one.png", "b/one.png", "b/x/one.png"].map(Path::new));
    }
}
