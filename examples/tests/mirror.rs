//! Fetching MNIST, which takes a program of its own: `cargo test -p tlr-examples --features
//! download`.
#![allow(clippy::unwrap_used, missing_docs)]

#[path = "../../tlr/tests/needs/mod.rs"]
mod needs;

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::mpsc::{channel, Receiver},
};

/// An empty folder. Without `tempfile`: whoever runs an example would have to build it.
fn folder(name: &str) -> PathBuf {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = fs::remove_dir_all(&dir);
    fs::create_dir_all(&dir).unwrap();
    dir
}

fn mnist(args: &[&str]) -> Output {
    let test = std::env::current_exe().unwrap();
    let program = test.ancestors().nth(2).unwrap().join("examples/mnist");
    let mut command = Command::new(program.with_extension(std::env::consts::EXE_EXTENSION));
    let out = folder("mirror-out");
    command.env_remove("TLR_DATA").args(args).arg("--out").arg(out).output().unwrap()
}

fn failure(args: &[&str]) -> String {
    let output = mnist(args);
    assert!(!output.status.success(), "{args:?} succeeded");
    String::from_utf8(output.stderr).unwrap()
}

/// A server of the files in `dir` at `/some/mirror`, its address, and what it is asked for.
fn mirror(dir: &Path) -> (String, Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}/some/mirror", listener.local_addr().unwrap());
    let (asked, asked_for) = channel();
    let dir = dir.to_owned();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let lines = BufReader::new(stream.try_clone().unwrap()).lines();
            let request: Vec<_> =
                lines.map_while(Result::ok).take_while(|line| !line.is_empty()).collect();
            let path = request[0].split(' ').nth(1).unwrap().to_owned();
            let file = path.strip_prefix("/some/mirror/").map(|name| fs::read(dir.join(name)));
            let (status, body) = match file {
                Some(Ok(body)) => ("200 OK", body),
                _ => ("404 Not Found", Vec::new()),
            };
            let head = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n", body.len());
            // The client may hang up first.
            let _ = stream.write_all(format!("{head}connection: close\r\n\r\n").as_bytes());
            let _ = stream.write_all(&body);
            let _ = asked.send(path);
        }
    });
    (address, asked_for)
}

// Fails if the address does not reach the download, with and without a slash at its end.
#[test]
fn a_mirror_is_asked_instead() {
    let (empty, cache) = (folder("mirror-empty"), folder("mirror-cache"));
    let (address, asked_for) = mirror(&empty);
    let cache = cache.to_str().unwrap();
    for address in [address.clone(), format!("{address}/")] {
        let message = failure(&["--download", "--data", cache, "--mirror", &address]);
        let file = "train-images-idx3-ubyte.gz";
        assert!(message.contains(&format!("some/mirror/{file}")), "{message}");
        assert!(message.contains("404") && message.contains("another mirror"), "{message}");
        assert_eq!(asked_for.recv().unwrap(), format!("/some/mirror/{file}"));
    }
    let message = failure(&["--mirror", &address]);
    assert!(message.contains("--download"), "{message}");
    let message = failure(&["--download", "--data", cache, "--mirror", "no address"]);
    assert!(message.contains("no address"), "{message}");

    // The original files, where they are beside the checkout.
    let original = needs::shared("data/mnist");
    if !needs::found("mnist", original.is_dir()) {
        return;
    }
    let (address, asked_for) = mirror(&original);
    let flags = ["--download", "--data", cache, "--mirror", &address];
    let short = ["--limit", "200", "--epochs", "1", "--json"];
    let output = mnist(&[&short[..], &flags].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let said = String::from_utf8(output.stdout).unwrap();
    let result: serde_json::Value = serde_json::from_str(said.lines().last().unwrap()).unwrap();
    assert_eq!((&result["data"], asked_for.try_iter().count()), (&"MNIST".into(), 4));
}
