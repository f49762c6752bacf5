//! Stores as the programs meet them: one suite for every kind, and `catlip-prep` over the network.
//!
//! The servers are those of `catlip_tests::servers`, and for the web Python's own. What is not
//! installed is skipped by name.
#![expect(clippy::unwrap_used, reason = "a test that fails says so by a panic")]

use std::io::{Read, Write};
use std::path::Path;
use std::process::Command;

use catlip_pipeline::prep::store::LocalFolder;
use catlip_pipeline::source::{ShardList, Store, StoreError};
use catlip_tests::servers::{Cloud, Server};
use catlip_tests::{files_of, program, samples, shard, told};

/// What every store must do.
fn suite(store: &dyn Store) {
    creations(store);
    creations_at_once(store);
    others(store);
}

fn others(store: &dyn Store) {
    files(store);
    new_files(store);
    lists(store);
}

fn creations(store: &dyn Store) {
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
}

/// Of several at once exactly one wins, and its bytes are there.
fn creations_at_once(store: &dyn Store) {
    let wins: Vec<u8> = std::thread::scope(|scope| {
        let put = |i: u8| store.put_new("manifest/1.json", &[i; 100]).is_ok().then_some(i);
        let all: Vec<_> = (0..4).map(|i| scope.spawn(move || put(i))).collect();
        all.into_iter().filter_map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(wins.len(), 1, "{wins:?}");
    assert_eq!(store.get("manifest/1.json").unwrap(), vec![wins[0]; 100]);
}

/// Small and in parts; a second one replaces the first.
fn files(store: &dyn Store) {
    let big: Vec<u8> =
        (0..17u32 << 20).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let mut file = store.create("images/a.parquet").unwrap();
    file.write_all(&big[..5]).unwrap();
    file.handle().unwrap().write_all(&big[5..]).unwrap();
    assert_eq!(store.head("images/a.parquet").unwrap(), None);
    let mut written = Vec::new();
    file.read_back().unwrap().read_to_end(&mut written).unwrap();
    assert!(written == big);
    file.keep().unwrap();
    assert_eq!(store.head("images/a.parquet").unwrap().unwrap().bytes, big.len() as u64);
    let at = 16_700_000..16_900_000u64;
    let found = store.get_range("images/a.parquet", at.clone()).unwrap();
    assert!(found == big[at.start as usize..at.end as usize]);
    assert!(store.get("images/a.parquet").unwrap() == big);
    let open = store.open("images/a.parquet").unwrap();
    let mut found = vec![0; 3 << 20];
    let mut at = 0;
    // In a row, as a checksum does, with blocks of any size; then from the end, as Parquet does.
    while let count @ 1.. = open.read_at(at, &mut found).unwrap() {
        assert!(found[..count] == big[at as usize..at as usize + count]);
        at += count as u64;
    }
    assert_eq!((at, open.bytes()), (big.len() as u64, big.len() as u64));
    let last = big.len() as u64 - 3;
    assert_eq!(open.read_at(last, &mut found).unwrap(), 3);
    assert_eq!(open.read_at(last + 3, &mut found).unwrap(), 0);
    store.put("images/a.parquet", b"small").unwrap();
    assert_eq!(store.get("images/a.parquet").unwrap(), b"small");
    assert_eq!(store.get_range("images/a.parquet", 1..4).unwrap(), b"mal");
    assert_eq!(store.get_range("images/a.parquet", 2..2).unwrap(), b"");
    let error = store.get_range("images/a.parquet", 1..6).unwrap_err();
    assert!(error.to_string().contains("bytes 1..6 were asked for, it has 5"), "{error}");
    assert!(matches!(store.open("images/b.parquet"), Err(StoreError::NotFound { .. })));
}

/// A file that is not kept leaves nothing; a new one goes by its second name.
fn new_files(store: &dyn Store) {
    store.create("images/c.parquet").unwrap().write_all(b"half").unwrap();
    let mut file = store.create("manifest/1.parquet").unwrap();
    file.write_all(b"table").unwrap();
    let error = file.keep_new("receipts/b.json").unwrap_err();
    assert!(matches!(error, StoreError::Exists { .. }), "{error}");
    file.keep_new("manifest/1.parquet").unwrap();
    drop(file);
    assert_eq!(store.get("manifest/1.parquet").unwrap(), b"table");
    assert_eq!(store.list("images").unwrap(), ["a.parquet"]);
    let names = ["manifest/1.parquet", "images/a.parquet"].map(str::to_owned);
    assert_eq!(store.get_all(&names).unwrap(), [&b"table"[..], b"small"]);
    let error = store.get_all(&["images/b.parquet".to_owned()]).unwrap_err();
    assert!(error.to_string().contains("images/b.parquet"), "{error}");
}

/// Sorted, and of one folder only.
fn lists(store: &dyn Store) {
    for name in ["receipts/a.json", "receipts/deep/c.json", "receipts-of-others/d.json"] {
        store.put_new(name, b"x").unwrap();
    }
    assert_eq!(store.list("receipts").unwrap(), ["a.json", "b.json", "empty.json"]);
    store.remove("receipts/b.json").unwrap();
    store.remove("receipts/b.json").unwrap();
    assert_eq!(store.list("receipts").unwrap(), ["a.json", "empty.json"]);
    store.put_new("receipts/b.json", b"third").unwrap();
    assert_eq!(store.get("receipts/b.json").unwrap(), b"third");
    let top = store.top_names().unwrap();
    assert_eq!(top, ["images", "manifest", "receipts", "receipts-of-others"]);
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
    let Some(cloud) = Cloud::s3() else { return };
    let (variables, stores) = (cloud.variables.clone(), cloud.stores());
    let open = |url: &str| stores.folder(Path::new(url)).unwrap();
    let lake = &cloud.root;
    suite(open(&format!("{lake}/suite")).store());

    let folder = tempfile::tempdir().unwrap();
    let expected = local_shards(folder.path(), 4);
    let store = open(lake);
    for i in 0..4 {
        let name = format!("in/a/{i:02}.tar");
        store.put(&name, &std::fs::read(folder.path().join(&name)).unwrap()).unwrap();
    }
    store.put_new("in/a/README", b"no shard").unwrap();
    let list = format!("# all\n{lake}/in/a/{{00..03}}.tar\n");
    store.put_new("in/list.txt", list.as_bytes()).unwrap();
    let spool = folder.path().join("spool").display().to_string();
    let set = format!("source.spool_dir={spool}");
    let inputs = ["/in/a/{00..03}.tar", "/in/a/*.tar", "/in/a/", "/in/**/0?.tar"];
    let inputs = inputs.map(|input| format!("{lake}{input}"));
    let list = format!("@{lake}/in/list.txt");
    for (i, input) in inputs.iter().chain([&list]).enumerate() {
        let output = folder.path().join(format!("out-{i}"));
        let (code, _, err) = prep(&variables, &[input], &output, &["--set", &set]);
        assert_eq!(code, 0, "{input}: {err}");
        assert!(columns_of(&output) == expected, "{input}: another data set than of local files");
    }
    assert_eq!(std::fs::read_dir(&spool).unwrap().count(), 0, "a fetched shard was left behind");
    assert!(files_of(&folder.path().join("out-0")) == files_of(&folder.path().join("out-1")));

    // Again: nothing to do. A shard that was replaced is named.
    let output = folder.path().join("out-0");
    let all = [inputs[1].as_str()];
    let (code, out, err) = prep(&variables, &all, &output, &[]);
    assert_eq!(code, 0, "{err}");
    assert!(out.contains("nothing to do: all 4 parts were there"), "{out}");
    store.put("in/a/02.tar", &shard(&samples(90, 3, 40))).unwrap();
    let (code, _, err) = prep(&variables, &all, &output, &[]);
    assert_eq!(code, 5, "{err}");
    assert!(err.contains("02.tar (part 000002)") && err.contains("etag-"), "{err}");

    // What is not there is named, whether it was asked for alone or among many.
    for input in ["/in/a/09.tar", "/in/a/{00..40}.tar", "/in/b/*.tar"] {
        let input = &format!("{lake}{input}");
        let (code, _, err) = prep(&variables, &[input], &folder.path().join("none"), &[]);
        assert_eq!(code, 5, "{input}: {err}");
        let is_named = ["09.tar", "04.tar", "b/*.tar"].iter().any(|name| err.contains(name));
        assert!(is_named && err.contains("hint: "), "{err}");
    }
    let (code, _, err) =
        prep(&variables, &["s3://nowhere/a.tar"], &folder.path().join("none"), &[]);
    assert_eq!(code, 5, "{err}");

    // Many names of one folder are looked up in one list of it.
    let names = [inputs[0].clone(), inputs[0].clone()];
    let error = ShardList::expand_with(&names, None, &stores.remote().unwrap()).unwrap_err();
    let error = error.to_string();
    assert!(error.contains("named twice"), "{error}");
}

/// Another server of the same protocol, in whose folder the objects are seen as files.
#[test]
fn s3_over_a_folder_is_a_store_and_a_source() {
    let Some(cloud) = Cloud::quick_s3() else { return };
    let stores = cloud.stores();
    let suite = stores.folder(Path::new("s3://lake/suite")).unwrap();
    creations(suite.store());
    // Not those at once: s3s-fs 0.14.1 looks whether the file is there and writes it later.
    others(suite.store());
    let folder = tempfile::tempdir().unwrap();
    let expected = local_shards(folder.path(), 4);
    let lake = stores.folder(Path::new("s3://lake")).unwrap();
    for i in 0..4 {
        let name = format!("in/a/{i:02}.tar");
        lake.store().put(&name, &std::fs::read(folder.path().join(&name)).unwrap()).unwrap();
    }
    for (number, input) in ["s3://lake/in/a/{00..03}.tar", "s3://lake/in/a/"].iter().enumerate() {
        let output = folder.path().join(format!("out-{number}"));
        let (code, _, err) = prep(&cloud.variables, &[input], &output, &[]);
        assert_eq!(code, 0, "{input}: {err}");
        assert!(columns_of(&output) == expected, "{input}: another data set than of local files");
    }
}

#[test]
fn a_store_without_credentials_is_told_at_once_with_the_variables_to_set() {
    let stores = ["AWS_", "GOOGLE_", "AZURE_", "GCE_"];
    let verify = |url: &str, variables: &[(&str, &str)]| {
        let mut command = program("catlip-prep");
        command.args(["verify", url]);
        for (name, _) in std::env::vars_os() {
            if stores.iter().any(|start| name.to_string_lossy().starts_with(start)) {
                command.env_remove(&name);
            }
        }
        // Where credentials of the machine's owner might lie, and a metadata service that is none.
        let none = [("HOME", "/nowhere"), ("GCE_METADATA_HOST", "127.0.0.1:9")];
        let none = [&none[..], &[("GCE_METADATA_IP", "127.0.0.1:9")]].concat();
        let none = [&none[..], &[("AWS_METADATA_ENDPOINT", "http://127.0.0.1:9")]].concat();
        told(&command.envs(none).envs(variables.iter().copied()).output().unwrap())
    };
    let start = std::time::Instant::now();
    let (code, _, err) = verify("s3://nobody/x", &[]);
    assert_eq!(code, 5, "{err}");
    assert!(err.contains("no credentials for s3://nobody/x/"), "{err}");
    assert!(err.contains("hint: set AWS_ACCESS_KEY_ID") && err.contains("AWS_SKIP_SIGNATURE"));
    let (code, _, err) = verify("s3://nobody/x", &[("AWS_ACCESS_KEY_ID", "a")]);
    assert!(code == 5 && err.contains("hint: set AWS_ACCESS_KEY_ID"), "{err}");
    let (code, _, err) = verify("gs://nobody/x", &[]);
    assert_eq!(code, 5, "{err}");
    assert!(err.contains("no credentials for gs://nobody/x/"), "{err}");
    assert!(err.contains("hint: set GOOGLE_APPLICATION_CREDENTIALS"), "{err}");
    let (code, _, err) = verify("az://nobody/x", &[]);
    assert_eq!(code, 5, "{err}");
    assert!(err.contains("no credentials for az://nobody/x/"), "{err}");
    assert!(err.contains("hint: set AZURE_STORAGE_ACCOUNT_NAME"), "{err}");
    assert!(start.elapsed().as_secs() < 60, "{:?}", start.elapsed());
}

#[test]
fn a_metadata_service_that_never_answers_is_given_up_soon() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", silent.local_addr().unwrap());
    let start = std::time::Instant::now();
    let mut command = program("catlip-prep");
    command.args(["verify", "s3://nobody/x"]).env("AWS_METADATA_ENDPOINT", address);
    for name in ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"] {
        command.env_remove(name);
    }
    let (code, _, err) = told(&command.output().unwrap());
    assert_eq!(code, 5, "{err}");
    assert!(err.contains("no credentials for s3://nobody/x/"), "{err}");
    assert!(start.elapsed().as_secs() < 30, "{:?}", start.elapsed());
}

#[test]
fn azure_is_a_store() {
    let Some(cloud) = Cloud::azure() else { return };
    let stores = cloud.stores();
    suite(stores.folder(Path::new("az://lake/suite")).unwrap().store());
    // A container is made by its owner, not by us.
    let other = stores.folder(Path::new("az://nowhere/suite")).unwrap();
    assert!(matches!(other.store().put_new("a", b""), Err(StoreError::NotFound { .. })));
}

#[test]
fn google_is_a_store() {
    let Some(cloud) = Cloud::google() else { return };
    let stores = cloud.stores();
    suite(stores.folder(Path::new(&format!("{}/suite", cloud.root))).unwrap().store());
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
