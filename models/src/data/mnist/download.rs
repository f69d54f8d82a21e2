//! Downloads MNIST's four files from a mirror, and checks each before it is kept.

use std::{
    io::{Read, Write},
    path::{Path, PathBuf},
    time::Duration,
};

use sha2::{Digest, Sha256};

use crate::data::{
    contents::{Contents, MAX_BYTES},
    DataError,
};

/// The mirror to [`download`] from unless there is a nearer one.
pub const DEFAULT_BASE_URL: &str = "https://ossci-datasets.s3.amazonaws.com/mnist/";

/// Three times the largest of the four files.
const DOWNLOAD_LIMIT: u64 = 32 << 20;

/// A file to download, and the SHA-256 of its decompressed contents. Mirrors compress differently,
/// so the compressed bytes would be no use here.
struct RemoteFile {
    name: &'static str,
    sha256: &'static str,
}

const FILES: [RemoteFile; 4] = [
    RemoteFile {
        name: "train-images-idx3-ubyte",
        sha256: "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    },
    RemoteFile {
        name: "train-labels-idx1-ubyte",
        sha256: "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    },
    RemoteFile {
        name: "t10k-images-idx3-ubyte",
        sha256: "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    },
    RemoteFile {
        name: "t10k-labels-idx1-ubyte",
        sha256: "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    },
];

/// Downloads the four MNIST files into the directory `cache`, which is created if need be, and
/// returns that directory for [`load`](super::load).
///
/// `base_url` is the address that file names are appended to, usually [`DEFAULT_BASE_URL`]. A file
/// counts only once its decompressed contents have the right SHA-256, so that neither the mirror
/// nor the connection has to be trusted; until then it has a temporary name. Files that are in the
/// cache and intact are not fetched again, damaged ones are.
///
/// `progress` is called as bytes arrive, with the name of the file, the bytes so far and, if the
/// server sends it, the number of bytes in all.
///
/// # Errors
/// [`DataError::Http`] when a request fails (an HTTP status other than success included),
/// [`DataError::Transfer`] when the body breaks off, [`DataError::DownloadTooLarge`] and
/// [`DataError::Checksum`] when it is something else, [`DataError::Gzip`] when it does not
/// decompress, and [`DataError::Io`] when the cache cannot be written. A file that fails leaves
/// nothing behind; those before it stay in the cache.
///
/// # Example
/// ```no_run
/// use tlr_models::data::mnist::{self, DEFAULT_BASE_URL};
///
/// let folder = mnist::download("mnist".as_ref(), DEFAULT_BASE_URL, &mut |name, so_far, of| {
///     println!("{name}: {so_far} bytes of {of:?}");
/// })?;
/// let data = mnist::load(&folder)?;
/// # Ok::<(), tlr_models::data::DataError>(())
/// ```
pub fn download(
    cache: &Path,
    base_url: &str,
    progress: &mut dyn FnMut(&str, u64, Option<u64>),
) -> Result<PathBuf, DataError> {
    download_sources(cache, base_url, &FILES, DOWNLOAD_LIMIT, progress)?;
    Ok(cache.to_owned())
}

fn download_sources(
    cache: &Path,
    base_url: &str,
    files: &[RemoteFile],
    limit: u64,
    progress: &mut dyn FnMut(&str, u64, Option<u64>),
) -> Result<(), DataError> {
    std::fs::create_dir_all(cache).map_err(|source| DataError::Io {
        action: "create",
        path: cache.to_owned(),
        source,
    })?;
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .timeout_connect(Some(Duration::from_secs(30)))
        .timeout_recv_response(Some(Duration::from_secs(60)))
        .timeout_recv_body(Some(Duration::from_secs(900)))
        .build()
        .into();
    for wanted in files {
        let name = format!("{}.gz", wanted.name);
        let path = cache.join(&name);
        if path.is_file() && sha256_of_contents(&path).is_ok_and(|sum| sum == wanted.sha256) {
            continue;
        }
        let url = format!("{}/{name}", base_url.trim_end_matches('/'));
        let write_error = |source| DataError::Io { action: "write", path: path.clone(), source };

        // Removed when dropped, that is, on every error below.
        let mut file = temporary(cache).map_err(write_error)?;
        fetch(&agent, &url, limit, |bytes, done, total| {
            progress(&name, done, total);
            file.write_all(bytes).map_err(write_error)
        })?;
        let found = sha256_of_contents(file.path())?;
        if found != wanted.sha256 {
            return Err(DataError::Checksum { url, expected: wanted.sha256.to_owned(), found });
        }
        file.persist(&path).map_err(|e| write_error(e.error))?;
    }
    Ok(())
}

/// A temporary file with the permissions of other new files. By default only its owner can read
/// one, also after it has taken its place.
fn temporary(folder: &Path) -> std::io::Result<tempfile::NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666)); // less the umask
    builder.tempfile_in(folder)
}

/// Passes the body found at `url` to `sink`, piece by piece, each with the number of bytes so far
/// and the number announced.
fn fetch(
    agent: &ureq::Agent,
    url: &str,
    limit: u64,
    mut sink: impl FnMut(&[u8], u64, Option<u64>) -> Result<(), DataError>,
) -> Result<(), DataError> {
    let too_large = || DataError::DownloadTooLarge { url: url.to_owned(), limit };
    let response = agent
        .get(url)
        .call()
        .map_err(|source| DataError::Http { url: url.to_owned(), source: Box::new(source) })?;
    let body = response.into_body();
    let total = body.content_length();
    if total.is_some_and(|total| total > limit) {
        return Err(too_large());
    }
    let mut reader = body.into_reader();
    let mut buffer = vec![0; 1 << 16];
    let mut done = 0;
    loop {
        let n = match reader.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => n,
            Err(source) => return Err(DataError::Transfer { url: url.to_owned(), done, source }),
        };
        done += n as u64;
        if done > limit {
            return Err(too_large());
        }
        sink(buffer.get(..n).unwrap_or_default(), done, total)?;
    }
    Ok(())
}

fn sha256_of_contents(path: &Path) -> Result<String, DataError> {
    let mut contents = Contents::open(path)?;
    let mut hasher = Sha256::new();
    // Enough for any file this crate reads, and an end to a gzip bomb.
    for _ in 0..MAX_BYTES >> 20 {
        let bytes = contents.read_up_to(1 << 20)?;
        if bytes.is_empty() {
            break;
        }
        hasher.update(&bytes);
    }
    let digest = hasher.finalize();
    Ok(digest.iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::print_stdout)]
    use std::{
        io::{BufRead, BufReader},
        net::{TcpListener, TcpStream},
        thread::JoinHandle,
    };

    use flate2::{write::GzEncoder, Compression};
    use tempfile::TempDir;

    use super::{super::find, *};

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn the_original_files_have_the_expected_checksums() {
        let dir = crate::needs::shared("data/mnist");
        if !crate::needs::found("mnist", dir.is_dir()) {
            return;
        }
        for wanted in &FILES {
            let path = find(&dir, wanted.name).unwrap();
            assert_eq!(sha256_of_contents(&path).unwrap(), wanted.sha256);
        }
    }

    // The SHA-256 of `hello` and of `world`.
    const HELLO: RemoteFile = RemoteFile {
        name: "hello",
        sha256: "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824",
    };
    const WORLD: RemoteFile = RemoteFile {
        name: "world",
        sha256: "486ea46224d1bb4fb680f34f7c9ad96a8f24ec88be73ea8e5a6c65260e9cb8a7",
    };

    /// Fails, rather than waiting for ever, when no request comes.
    fn accept(listener: &TcpListener) -> TcpStream {
        listener.set_nonblocking(true).unwrap();
        for _ in 0..500 {
            if let Ok((stream, _)) = listener.accept() {
                stream.set_nonblocking(false).unwrap();
                return stream;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        unreachable!("no request within five seconds")
    }

    struct Server {
        base_url: String,
        thread: JoinHandle<Vec<String>>,
    }

    impl Server {
        /// Answers one request with each of `responses`, then closes.
        fn new(responses: Vec<Vec<u8>>) -> Self {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let base_url = format!("http://{}/mnist/", listener.local_addr().unwrap());
            let thread = std::thread::spawn(move || {
                let answer = |response: Vec<u8>| {
                    let mut stream = accept(&listener);
                    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
                    let request = lines.next().unwrap().unwrap();
                    for line in lines {
                        if line.unwrap().is_empty() {
                            break;
                        }
                    }
                    // The client may hang up first, when it has seen enough.
                    let _ = stream.write_all(&response);
                    request
                };
                responses.into_iter().map(answer).collect()
            });
            Self { base_url, thread }
        }

        /// The first line of each request.
        fn requests(self) -> Vec<String> {
            self.thread.join().unwrap()
        }
    }

    fn ok(body: &[u8], announced: Option<usize>) -> Vec<u8> {
        let length = announced.map_or(String::new(), |n| format!("content-length: {n}\r\n"));
        let mut bytes =
            format!("HTTP/1.1 200 OK\r\n{length}connection: close\r\n\r\n").into_bytes();
        bytes.extend(body);
        bytes
    }

    fn entries(dir: &TempDir) -> Vec<String> {
        let mut names: Vec<_> = std::fs::read_dir(dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    fn silent() -> impl FnMut(&str, u64, Option<u64>) {
        |_, _, _| {}
    }

    #[test]
    fn verified_files_are_kept_and_not_fetched_again() {
        let (hello, world) = (gzip(b"hello"), gzip(b"world"));
        let server = Server::new(vec![ok(&hello, Some(hello.len())), ok(&world, None)]);
        let cache = tempfile::tempdir().unwrap();
        let below = cache.path().join("a/b");
        let url = server.base_url.clone();

        let mut calls = Vec::new();
        let mut progress = |name: &str, done, total| calls.push((name.to_owned(), done, total));
        download_sources(&below, &url, &[HELLO, WORLD], 1000, &mut progress).unwrap();
        let last = |name: &str| calls.iter().rev().find(|c| c.0 == name).cloned();
        let hello_len = hello.len() as u64;
        assert_eq!(last("hello.gz"), Some(("hello.gz".into(), hello_len, Some(hello_len))));
        assert_eq!(last("world.gz"), Some(("world.gz".into(), world.len() as u64, None)));
        assert_eq!(std::fs::read(below.join("hello.gz")).unwrap(), hello);
        assert_eq!(
            server.requests(),
            ["GET /mnist/hello.gz HTTP/1.1", "GET /mnist/world.gz HTTP/1.1"]
        );

        // The server is gone: a request would fail.
        download_sources(&below, &url, &[HELLO, WORLD], 1000, &mut silent()).unwrap();
    }

    #[test]
    fn a_damaged_cached_file_is_replaced() {
        let server = Server::new(vec![ok(&gzip(b"hello"), None)]);
        let cache = tempfile::tempdir().unwrap();
        std::fs::write(cache.path().join("hello.gz"), gzip(b"hullo")).unwrap();
        download_sources(cache.path(), &server.base_url, &[HELLO], 1000, &mut silent()).unwrap();
        assert_eq!(server.requests().len(), 1);
        assert_eq!(sha256_of_contents(&cache.path().join("hello.gz")).unwrap(), HELLO.sha256);
    }

    /// The error for one response, after checking that it leaves no file.
    fn failure(response: Vec<u8>, limit: u64) -> DataError {
        let server = Server::new(vec![response]);
        let cache = tempfile::tempdir().unwrap();
        let error =
            download_sources(cache.path(), &server.base_url, &[HELLO, WORLD], limit, &mut silent())
                .unwrap_err();
        assert_eq!(server.requests().len(), 1);
        assert_eq!(entries(&cache), [""; 0]);
        error
    }

    #[test]
    fn a_wrong_checksum_is_refused() {
        let error = failure(ok(&gzip(b"world"), None), 1000);
        assert!(
            matches!(&error, DataError::Checksum { expected, found, .. }
                if expected == HELLO.sha256 && found == WORLD.sha256),
            "{error}"
        );
    }

    #[test]
    fn a_missing_page_is_refused() {
        let response = b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n".to_vec();
        let error = failure(response, 1000);
        assert!(
            matches!(&error, DataError::Http { source, .. }
                if matches!(**source, ureq::Error::StatusCode(404))),
            "{error}"
        );
        assert!(error.to_string().contains("/mnist/hello.gz"), "{error}");
    }

    #[test]
    fn a_body_that_breaks_off_is_refused() {
        let hello = gzip(b"hello");
        let error = failure(ok(&hello[..10], Some(hello.len())), 1000);
        assert!(matches!(error, DataError::Transfer { done: 10, .. }), "{error}");
        let error = failure(ok(&hello[..10], None), 1000);
        assert!(matches!(error, DataError::Gzip { .. }), "{error}");
    }

    #[test]
    fn an_oversized_body_is_refused() {
        for announced in [Some(2000), None] {
            let error = failure(ok(&[0; 2000], announced), 1000);
            assert!(matches!(error, DataError::DownloadTooLarge { limit: 1000, .. }), "{error}");
        }
    }

    #[test]
    fn an_unreachable_server_is_named() {
        // A port that no server of these tests can be given.
        let cache = tempfile::tempdir().unwrap();
        let url = "http://127.0.0.1:1";
        let error = download_sources(cache.path(), url, &[HELLO], 1000, &mut silent()).unwrap_err();
        assert!(matches!(error, DataError::Http { .. }), "{error}");
        assert!(error.to_string().contains(url), "{error}");
    }
}
