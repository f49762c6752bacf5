//! Stores as the programs meet them: one suite for every kind, and `catlip-prep` over the network.
//!
//! S3 is spoken with moto (`scripts/setup.sh --tests` installs it), Azure's protocol with azurite,
//! the web with Python's own server. What is not installed is skipped by name.
#![expect(clippy::unwrap_used, reason = "a test that fails says so by a panic")]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use catlip_pipeline::prep::store::{LocalFolder, open_store};
use catlip_pipeline::source::object::{Remote, RemoteOptions};
use catlip_pipeline::source::{ShardList, Store, StoreError};
use catlip_tests::{files_of, program, root, samples, shard, told};

/// A server that is killed with the test.
struct Server {
    child: Child,
    port: u16,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

impl Server {
    /// Starts `command` on a free port; `None` if there is no such program.
    fn start(command: impl FnOnce(u16) -> Command) -> Option<Self> {
        let port = free_port();
        let child = command(port)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .ok()?;
        let mut server = Self { child, port };
        // Python needs seconds to import what moto needs; a busy machine more.
        for _ in 0..600 {
            if TcpStream::connect(("127.0.0.1", port)).is_ok() {
                return Some(server);
            }
            if server.child.try_wait().unwrap().is_some() {
                return None;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        panic!("the server on port {port} does not answer");
    }

    /// One request without a body; the status line of the answer.
    fn request(&self, method: &str, path: &str) -> String {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        let text =
            format!("{method} {path} HTTP/1.0\r\nHost: 127.0.0.1\r\nContent-Length: 0\r\n\r\n");
        stream.write_all(text.as_bytes()).unwrap();
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer);
        answer.lines().next().unwrap_or_default().to_owned()
    }
}

/// Where `scripts/setup.sh --tests` puts what it installs, else the name itself.
fn installed(path: &str, name: &str) -> PathBuf {
    let own = root().join(".deps").join(path);
    if own.is_file() { own } else { name.into() }
}

/// A moto with one bucket, and the variables that lead to it.
fn moto(bucket: &str) -> Option<(Server, Vec<(String, String)>)> {
    let server = Server::start(|port| {
        let mut command = Command::new(installed("moto/bin/moto_server", "moto_server"));
        command.args(["-H", "127.0.0.1", "-p", &port.to_string()]);
        command
    })?;
    assert!(server.request("PUT", &format!("/{bucket}")).contains(" 200 "));
    let variables = [
        ("AWS_ENDPOINT_URL", format!("http://127.0.0.1:{}", server.port)),
        ("AWS_ACCESS_KEY_ID", "test".to_owned()),
        ("AWS_SECRET_ACCESS_KEY", "test".to_owned()),
        ("AWS_REGION", "us-east-1".to_owned()),
    ];
    Some((server, variables.map(|(key, value)| (key.to_owned(), value)).to_vec()))
}

fn remote(variables: &[(String, String)]) -> Arc<Remote> {
    let variables = variables.to_vec();
    let options = RemoteOptions { variables, retries: 3, ..RemoteOptions::default() };
    Arc::new(Remote::start(options).unwrap())
}

/// What every store must do.
fn suite(store: &dyn Store) {
    assert_eq!(store.list("receipts").unwrap(), Vec::<String>::new());
    assert_eq!(store.head("receipts/a.json").unwrap(), None);
    assert!(matches!(store.get("receipts/a.json"), Err(StoreError::NotFound { .. })));

    // An exclusive create keeps the first.
    store.put_new("receipts/b.json", b"first").unwrap();
    let error = store.put_new("receipts/b.json", b"second").unwrap_err();
    assert!(matches!(error, StoreError::Exists { .. }), "{error}");
    assert!(error.to_string().contains("receipts/b.json"), "{error}");
    assert_eq!(store.get("receipts/b.json").unwrap(), b"first");
    store.put_new("receipts/empty.json", b"").unwrap();
    assert_eq!(store.get("receipts/empty.json").unwrap(), b"");

    // Of several at once exactly one wins, and its bytes are there.
    let wins: Vec<u8> = std::thread::scope(|scope| {
        let put = |i: u8| store.put_new("manifest/1.json", &[i; 100]).is_ok().then_some(i);
        let all: Vec<_> = (0..4).map(|i| scope.spawn(move || put(i))).collect();
        all.into_iter().filter_map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(wins.len(), 1, "{wins:?}");
    assert_eq!(store.get("manifest/1.json").unwrap(), vec![wins[0]; 100]);

    // Files, small and in parts; a second one replaces the first.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("big");
    let big: Vec<u8> =
        (0..17u32 << 20).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    std::fs::write(&path, &big).unwrap();
    store.put_file("images/a.parquet", &path).unwrap();
    assert_eq!(store.head("images/a.parquet").unwrap().unwrap().bytes, big.len() as u64);
    let at = 16_700_000..16_900_000u64;
    let found = store.get_range("images/a.parquet", at.clone()).unwrap();
    assert!(found == big[at.start as usize..at.end as usize]);
    assert!(store.get("images/a.parquet").unwrap() == big);
    std::fs::write(&path, b"small").unwrap();
    store.put_file("images/a.parquet", &path).unwrap();
    assert_eq!(store.get("images/a.parquet").unwrap(), b"small");
    assert_eq!(store.get_range("images/a.parquet", 1..4).unwrap(), b"mal");
    assert_eq!(store.get_range("images/a.parquet", 2..2).unwrap(), b"");
    let error = store.get_range("images/a.parquet", 1..6).unwrap_err();
    assert!(error.to_string().contains("bytes 1..6 were asked for, it has 5"), "{error}");
    let error = store.put_file("images/b.parquet", &folder.path().join("absent")).unwrap_err();
    assert!(matches!(error, StoreError::Local { .. }), "{error}");
    assert_eq!(store.head("images/b.parquet").unwrap(), None);

    // Lists are sorted and know one folder only.
    for name in ["receipts/a.json", "receipts/deep/c.json", "receipts-of-others/d.json"] {
        store.put_new(name, b"x").unwrap();
    }
    assert_eq!(store.list("receipts").unwrap(), ["a.json", "b.json", "empty.json"]);
    store.remove("receipts/b.json").unwrap();
    store.remove("receipts/b.json").unwrap();
    assert_eq!(store.list("receipts").unwrap(), ["a.json", "empty.json"]);
    store.put_new("receipts/b.json", b"third").unwrap();
    assert_eq!(store.get("receipts/b.json").unwrap(), b"third");
}

#[test]
fn a_local_folder_is_a_store() {
    let folder = tempfile::tempdir().unwrap();
    suite(&LocalFolder::new(&folder.path().join("new")));
    // Nothing that was being written is left behind.
    let files = files_of(folder.path());
    assert!(files.iter().all(|(name, _)| !name.contains(".tmp")), "{files:?}");
}

/// `catlip-prep run` over `inputs` in an environment.
fn prep(
    variables: &[(String, String)],
    inputs: &[&str],
    output: &Path,
    more: &[&str],
) -> (i32, String, String) {
    let mut command = program("catlip-prep");
    command.args(["run", "--quiet", "--input"]).args(inputs).arg("--output").arg(output);
    command.args(more).envs(variables.iter().cloned());
    told(&command.output().unwrap())
}

/// The files of a data set that hold no ETag of a shard.
fn columns_of(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut files = files_of(folder);
    files.retain(|(name, _)| !name.starts_with("receipts") && !name.starts_with("manifest"));
    files
}

/// Shards `00.tar` … below `folder`, and the data set that local input gives.
fn local_shards(folder: &Path, count: usize) -> Vec<(String, Vec<u8>)> {
    std::fs::create_dir_all(folder.join("in/a")).unwrap();
    for i in 0..count {
        let path = folder.join(format!("in/a/{i:02}.tar"));
        std::fs::write(path, shard(&samples(3 * i, 3, 40))).unwrap();
    }
    let input = folder.join("in/a/*.tar").display().to_string();
    let (code, _, err) = prep(&[], &[&input], &folder.join("local"), &[]);
    assert_eq!(code, 0, "{err}");
    columns_of(&folder.join("local"))
}

#[test]
fn s3_is_a_store_and_a_source() {
    let Some((_server, variables)) = moto("lake") else {
        println!("skipped: no moto_server (scripts/setup.sh --tests installs it)");
        return;
    };
    let remote = remote(&variables);
    suite(open_store("s3://lake/suite", &remote).unwrap().as_ref());

    let folder = tempfile::tempdir().unwrap();
    let expected = local_shards(folder.path(), 4);
    let store = open_store("s3://lake", &remote).unwrap();
    for i in 0..4 {
        let name = format!("in/a/{i:02}.tar");
        store.put_file(&name, &folder.path().join(&name)).unwrap();
    }
    store.put_new("in/a/README", b"no shard").unwrap();
    store.put_new("in/list.txt", b"# all\ns3://lake/in/a/{00..03}.tar\n").unwrap();
    let spool = folder.path().join("spool").display().to_string();
    let set = format!("source.spool_dir={spool}");
    for (i, input) in [
        "s3://lake/in/a/{00..03}.tar",
        "s3://lake/in/a/*.tar",
        "s3://lake/in/a/",
        "s3://lake/in/**/0?.tar",
        "@s3://lake/in/list.txt",
    ]
    .into_iter()
    .enumerate()
    {
        let output = folder.path().join(format!("out-{i}"));
        let (code, _, err) = prep(&variables, &[input], &output, &["--set", &set]);
        assert_eq!(code, 0, "{input}: {err}");
        assert!(columns_of(&output) == expected, "{input}: another data set than of local files");
    }
    assert_eq!(std::fs::read_dir(&spool).unwrap().count(), 0, "a fetched shard was left behind");
    assert!(files_of(&folder.path().join("out-0")) == files_of(&folder.path().join("out-1")));

    // Again: nothing to do. A shard that was replaced is named.
    let output = folder.path().join("out-0");
    let all = ["s3://lake/in/a/*.tar"];
    let (code, out, err) = prep(&variables, &all, &output, &[]);
    assert_eq!(code, 0, "{err}");
    assert!(out.contains("nothing to do: all 4 parts were there"), "{out}");
    let other = folder.path().join("other.tar");
    std::fs::write(&other, shard(&samples(90, 3, 40))).unwrap();
    store.put_file("in/a/02.tar", &other).unwrap();
    let (code, _, err) = prep(&variables, &all, &output, &[]);
    assert_eq!(code, 5, "{err}");
    assert!(err.contains("02.tar (part 000002)") && err.contains("etag-"), "{err}");

    // What is not there is named, whether it was asked for alone or among many.
    for input in ["s3://lake/in/a/09.tar", "s3://lake/in/a/{00..40}.tar", "s3://lake/in/b/*.tar"] {
        let (code, _, err) = prep(&variables, &[input], &folder.path().join("none"), &[]);
        assert_eq!(code, 5, "{input}: {err}");
        let is_named = ["09.tar", "04.tar", "b/*.tar"].iter().any(|name| err.contains(name));
        assert!(is_named && err.contains("hint: "), "{err}");
    }
    let (code, _, err) =
        prep(&variables, &["s3://nowhere/a.tar"], &folder.path().join("none"), &[]);
    assert_eq!(code, 5, "{err}");

    // Many names of one folder are looked up in one list of it.
    let names =
        ["s3://lake/in/a/{00..03}.tar".to_owned(), "s3://lake/in/a/{00..03}.tar".to_owned()];
    let error = ShardList::expand_with(&names, None, &remote).unwrap_err().to_string();
    assert!(error.contains("named twice"), "{error}");
}

#[test]
fn azure_is_a_store() {
    let folder = tempfile::tempdir().unwrap();
    let start = |port: u16| {
        let mut command =
            Command::new(installed("azurite/node_modules/.bin/azurite-blob", "azurite-blob"));
        command.args(["--silent", "--skipApiVersionCheck", "--blobPort", &port.to_string()]);
        command.arg("--location").arg(folder.path());
        command
    };
    let Some(server) = Server::start(start) else {
        println!("skipped: no azurite-blob (npm install azurite)");
        return;
    };
    let account = format!("http://127.0.0.1:{}/devstoreaccount1", server.port);
    let variables =
        [("AZURE_STORAGE_USE_EMULATOR", "true".to_owned()), ("AZURE_STORAGE_ENDPOINT", account)];
    let remote = remote(&variables.map(|(key, value)| (key.to_owned(), value)));
    let store = open_store("az://lake/suite", &remote).unwrap();
    // A container is made by its owner, not by us.
    assert!(matches!(store.put_new("a", b""), Err(StoreError::NotFound { .. })));
}

#[test]
fn a_plain_web_server_without_ranges_is_a_source() {
    let folder = tempfile::tempdir().unwrap();
    let expected = local_shards(folder.path(), 2);
    let start = |port: u16| {
        let mut command = Command::new("python3");
        command.args(["-m", "http.server", "--bind", "127.0.0.1", &port.to_string()]);
        command.current_dir(folder.path());
        command
    };
    let Some(server) = Server::start(start) else {
        println!("skipped: no python3");
        return;
    };
    let input = format!("http://127.0.0.1:{}/in/a/{{00..01}}.tar", server.port);
    let output = folder.path().join("out");
    let (code, _, err) = prep(&[], &[&input], &output, &[]);
    assert_eq!(code, 0, "{err}");
    assert!(columns_of(&output) == expected);
    let input = format!("http://127.0.0.1:{}/in/a/{{00..02}}.tar", server.port);
    let (code, _, err) = prep(&[], &[&input], &folder.path().join("none"), &[]);
    assert_eq!(code, 5, "{err}");
    assert!(err.contains("02.tar does not exist"), "{err}");
    let input = format!("http://127.0.0.1:{}/in/a/*.tar", server.port);
    let (code, _, err) = prep(&[], &[&input], &folder.path().join("none"), &[]);
    assert_eq!(code, 5, "{err}");
}
