//! A server that misbehaves on purpose, and what the readers make of it.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::source::list::{ShardList, ShardPlace, ShardUrl};
use crate::source::spool::{ShardIdentity, Spool, SpoolOptions, identity};

/// What the server does with one request for bytes.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    None,
    /// Promises everything, sends so many bytes, closes.
    Cut(usize),
    /// Sends so many bytes and then nothing, with the line open.
    Stall(usize),
    Status(u16),
    /// Closes without an answer.
    Silence,
    /// Answers something that is no HTTP.
    Garbage,
    /// Sends so many bytes less than asked, and says so as if it were right.
    Short(usize),
    /// Sends so many bytes more than asked.
    Long(usize),
    /// Says that the object has another length.
    OtherLength,
    /// Says that the object has another ETag, whatever the condition was.
    OtherEtag,
    /// The object is replaced by another of the same length before this answer.
    Replaced,
    /// Sends the whole object with status 200, so many bytes of it.
    Whole(usize),
}

struct Object {
    bytes: Vec<u8>,
    etag: Option<String>,
    faults: VecDeque<Fault>,
    then: Fault,
    modified: &'static str,
}

struct FaultServer {
    port: u16,
    gets: Arc<AtomicUsize>,
}

const BEFORE: &str = "Mon, 02 Jan 2023 03:04:05 GMT";
const AFTER: &str = "Mon, 02 Jan 2023 03:04:06 GMT";

fn content(count: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695);
        (state >> 56) as u8
    })
    .take(count)
    .collect()
}

impl FaultServer {
    fn start(bytes: Vec<u8>, etag: Option<&str>, faults: &[Fault], then: Fault) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let etag = etag.map(str::to_owned);
        let faults = faults.iter().copied().collect();
        let object = Arc::new(Mutex::new(Object { bytes, etag, faults, then, modified: BEFORE }));
        let gets = Arc::new(AtomicUsize::new(0));
        let (shared, count) = (object.clone(), gets.clone());
        // The thread ends with the test's process; a connection is a thread of its own.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (object, gets) = (shared.clone(), count.clone());
                std::thread::spawn(move || serve(stream, &object, &gets));
            }
        });
        Self { port, gets }
    }

    fn url(&self, scheme: &str) -> RemoteUrl {
        let text = match scheme {
            "s3" => "s3://bucket/a.tar".to_owned(),
            _ => format!("http://127.0.0.1:{}/bucket/a.tar", self.port),
        };
        RemoteUrl::parse(&text).unwrap().unwrap()
    }

    fn remote(&self) -> Arc<Remote> {
        let variables = [
            ("AWS_ENDPOINT_URL", format!("http://127.0.0.1:{}", self.port)),
            ("AWS_ACCESS_KEY_ID", "test".to_owned()),
            ("AWS_SECRET_ACCESS_KEY", "test".to_owned()),
        ];
        let options = RemoteOptions {
            variables: variables.map(|(key, value)| (key.to_owned(), value)).to_vec(),
            requests: 4,
            retries: 3,
            timeout_secs: 0.3,
            pause_first: Duration::from_millis(1),
            scratch: std::env::temp_dir(),
        };
        Arc::new(Remote::start(options).unwrap())
    }

    fn fetch(&self, scheme: &str) -> Result<Vec<u8>, StoreError> {
        let (remote, url) = (self.remote(), self.url(scheme));
        let info = remote.heads(std::slice::from_ref(&url))?.remove(0);
        let file = tempfile::tempfile().unwrap();
        file.set_len(info.bytes).unwrap();
        remote.fetch(&url, &info, &file, Path::new("/spool"), &Cancel::default())?;
        let mut bytes = vec![0; info.bytes as usize];
        file.read_exact_at(&mut bytes, 0).unwrap();
        Ok(bytes)
    }
}

/// Method and path, and the headers that matter.
type Request = (String, Option<(usize, usize)>, Option<String>);

/// One request; `None` at the end of the line.
fn request(reader: &mut impl BufRead) -> Option<Request> {
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|&count| count > 0)?;
    let method = line.split(' ').next()?.to_owned();
    let (mut range, mut if_match) = (None, None);
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).ok()?;
        let Some((name, value)) = header.trim_end().split_once(": ") else { break };
        match name.to_lowercase().as_str() {
            "range" => {
                let (from, to) = value.strip_prefix("bytes=")?.split_once('-')?;
                range = Some((from.parse().ok()?, to.parse::<usize>().ok()? + 1));
            }
            "if-match" => if_match = Some(value.to_owned()),
            _ => {}
        }
    }
    Some((method, range, if_match))
}

fn serve(stream: TcpStream, object: &Mutex<Object>, gets: &AtomicUsize) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut stream = stream;
    while let Some((method, range, if_match)) = request(&mut reader) {
        let is_head = method == "HEAD";
        let fault = match is_head {
            true => Fault::None,
            false => {
                gets.fetch_add(1, Ordering::SeqCst);
                let mut object = object.lock().unwrap();
                let then = object.then;
                object.faults.pop_front().unwrap_or(then)
            }
        };
        if !answer(&mut stream, object, fault, is_head, range, if_match) {
            return;
        }
    }
}

/// Sends one answer; whether the line stays usable.
fn answer(
    stream: &mut TcpStream,
    object: &Mutex<Object>,
    fault: Fault,
    is_head: bool,
    range: Option<(usize, usize)>,
    if_match: Option<String>,
) -> bool {
    let mut object = object.lock().unwrap();
    if fault == Fault::Replaced {
        object.bytes.reverse();
        object.etag = object.etag.as_ref().map(|_| "\"replaced\"".to_owned());
        object.modified = AFTER;
    }
    let (bytes, etag) = (object.bytes.clone(), object.etag.clone());
    let modified = object.modified;
    drop(object);
    let plain = |status: u16| format!("HTTP/1.1 {status} x\r\nContent-Length: 0\r\n\r\n");
    if let Fault::Status(status) = fault {
        return stream.write_all(plain(status).as_bytes()).is_ok();
    }
    match fault {
        Fault::Silence => return false,
        Fault::Garbage => {
            let _ = stream.write_all(b"ok whatever\r\n\r\n");
            return false;
        }
        _ => {}
    }
    if fault != Fault::OtherEtag && if_match.is_some() && if_match != etag {
        return stream.write_all(plain(412).as_bytes()).is_ok();
    }
    let said_etag = if fault == Fault::OtherEtag { Some("\"other\"".to_owned()) } else { etag };
    let (mut head, mut body) = match range.filter(|_| !matches!(fault, Fault::Whole(_))) {
        Some((from, to)) => {
            let total = bytes.len() + usize::from(fault == Fault::OtherLength);
            let line = format!("Content-Range: bytes {from}-{}/{total}", to - 1);
            (format!("HTTP/1.1 206 x\r\n{line}\r\n"), bytes[from..to].to_vec())
        }
        None => ("HTTP/1.1 200 x\r\n".to_owned(), bytes),
    };
    match fault {
        Fault::Short(less) => body.truncate(body.len().saturating_sub(less)),
        Fault::Long(more) => body.extend(content(more, 9)),
        _ => {}
    }
    head += &format!("Content-Length: {}\r\nLast-Modified: {modified}\r\n", body.len());
    if let Some(etag) = said_etag {
        head += &format!("ETag: {etag}\r\n");
    }
    if stream.write_all(format!("{head}\r\n").as_bytes()).is_err() {
        return false;
    }
    if is_head {
        return true;
    }
    let sent = match fault {
        Fault::Cut(sent) | Fault::Stall(sent) | Fault::Whole(sent) => sent.min(body.len()),
        _ => body.len(),
    };
    if stream.write_all(&body[..sent]).is_err() {
        return false;
    }
    if let Fault::Stall(_) = fault {
        std::thread::sleep(Duration::from_millis(900));
    }
    sent == body.len()
}

/// Whatever breaks and can be mended ends in the right bytes.
#[test]
fn a_transfer_that_breaks_goes_on_at_the_byte_after() {
    let plans: [&[Fault]; 9] = [
        &[],
        &[Fault::Cut(0), Fault::Cut(1), Fault::Cut(70_000)],
        &[Fault::Stall(0)],
        &[Fault::Stall(90_001)],
        &[Fault::Status(503), Fault::Status(500), Fault::Status(429)],
        &[Fault::Silence, Fault::Silence],
        &[Fault::Short(1), Fault::Short(50_000)],
        &[Fault::Cut(10), Fault::Status(503), Fault::Cut(10), Fault::Silence, Fault::Cut(99)],
        &[Fault::Cut(1); 20],
    ];
    let bytes = content(200_003, 1);
    for scheme in ["http", "s3"] {
        for plan in plans {
            let server = FaultServer::start(bytes.clone(), Some("\"a\""), plan, Fault::None);
            let found = server.fetch(scheme).unwrap_or_else(|e| panic!("{scheme} {plan:?}: {e:?}"));
            assert!(found == bytes, "{scheme} {plan:?}");
            assert!(server.gets.load(Ordering::SeqCst) > plan.len(), "{scheme} {plan:?}");
        }
    }
}

#[test]
fn a_shard_of_several_ranges_is_put_together_in_order() {
    let bytes = content(2 * RANGE_BYTES as usize + 12_345, 2);
    let plan = [Fault::Cut(100_000), Fault::None, Fault::Status(503), Fault::Short(4_000_000)];
    let server = FaultServer::start(bytes.clone(), Some("\"a\""), &plan, Fault::None);
    assert!(server.fetch("http").unwrap() == bytes);
}

/// A server without ranges, such as Python's own, sends the whole each time.
#[test]
fn a_server_without_ranges_is_read_from_its_beginning() {
    let bytes = content(300_000, 3);
    let plan = [Fault::Whole(9), Fault::Whole(1000), Fault::Whole(250_000)];
    for etag in [Some("\"a\""), None] {
        let server = FaultServer::start(bytes.clone(), etag, &plan, Fault::Whole(usize::MAX));
        assert!(server.fetch("http").unwrap() == bytes);
    }
}

#[test]
fn what_cannot_be_mended_is_a_clear_error() {
    let bytes = content(100_000, 4);
    let error = |scheme: &str, fault: Fault| {
        let server = FaultServer::start(bytes.clone(), Some("\"a\""), &[], fault);
        let error = server.fetch(scheme).expect_err("the fault is for ever");
        (error.to_string(), error, server.gets.load(Ordering::SeqCst))
    };
    for scheme in ["http", "s3"] {
        let (text, found, gets) = error(scheme, Fault::Status(404));
        assert!(matches!(found, StoreError::NotFound { .. }) && gets == 1, "{text}, {gets}");
        let (text, found, gets) = error(scheme, Fault::Status(403));
        assert!(matches!(found, StoreError::Denied { .. }) && gets == 1, "{text}, {gets}");
        let (text, found, gets) = error(scheme, Fault::Status(416));
        assert!(matches!(found, StoreError::Failed { .. }) && gets == 1, "{text}, {gets}");
        let (text, found, gets) = error(scheme, Fault::Status(503));
        assert!(matches!(found, StoreError::Failed { .. }) && gets == 4, "{text}, {gets}");
        let (text, ..) = error(scheme, Fault::OtherLength);
        assert!(text.ends_with("its length in bytes is 100001, was 100000"), "{text}");
        let (text, ..) = error(scheme, Fault::OtherEtag);
        assert!(text.ends_with("its ETag is \"other\", was \"a\""), "{text}");
        let (text, ..) = error(scheme, Fault::Replaced);
        assert!(text.contains("changed while it was read: its ETag is \"replaced\""), "{text}");
        let (text, ..) = error(scheme, Fault::Long(5));
        assert!(text.ends_with("bytes up to 100000 were asked for, more came: 100005"), "{text}");
        let (text, found, _) = error(scheme, Fault::Cut(0));
        assert!(matches!(found, StoreError::Broken { .. } | StoreError::Failed { .. }), "{text}");
        let (text, found, _) = error(scheme, Fault::Short(100_000));
        assert!(matches!(found, StoreError::Broken { at: 0, .. }), "{text}");
        let (text, found, _) = error(scheme, Fault::Garbage);
        assert!(matches!(found, StoreError::Failed { .. }), "{text}");
    }
}

/// The half that came before a replacement is never joined with the half of another object.
#[test]
fn an_object_replaced_in_the_middle_is_never_mixed() {
    for etag in [Some("\"a\""), Some("W/\"a\""), None] {
        let plan = [Fault::Cut(1000), Fault::Replaced];
        let server = FaultServer::start(content(50_000, 5), etag, &plan, Fault::None);
        let error = server.fetch("http").unwrap_err();
        assert!(matches!(error, StoreError::Changed { .. }), "{etag:?}: {error}");
    }
}

/// The feed knows no ETag of a row group's file: the first answer decides which object it is.
#[test]
fn a_range_of_an_object_of_which_nothing_is_known_is_of_one_object() {
    let bytes = content(80_000, 6);
    let read = |faults: &[Fault], range: Range<u64>| {
        let server = FaultServer::start(bytes.clone(), Some("\"a\""), faults, Fault::None);
        let found = server.remote().get_range(&server.url("s3"), None, range);
        (found, server.gets.load(Ordering::SeqCst))
    };
    let (found, gets) = read(&[], 5000..70_000);
    assert!(found.unwrap() == bytes[5000..70_000] && gets == 1);
    let plan = [Fault::Status(503), Fault::Cut(100), Fault::Silence, Fault::Short(30_000)];
    let (found, gets) = read(&plan, 5000..70_000);
    assert!(found.unwrap() == bytes[5000..70_000] && gets == 5, "{gets}");
    let (found, _) = read(&[Fault::Cut(1000), Fault::Replaced], 5000..70_000);
    assert!(matches!(found, Err(StoreError::Changed { .. })));
    for range in [79_000..80_001, 80_000..80_001, 90_000..90_002] {
        let error = read(&[], range.clone()).0.unwrap_err().to_string();
        let expected = format!("{}..{} were asked for, it has 80000", range.start, range.end);
        assert!(error.ends_with(&expected), "{error}");
    }
}

#[test]
fn a_server_that_is_not_there_is_an_error_with_a_hint() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let server = FaultServer::start(Vec::new(), None, &[], Fault::None);
    let url = RemoteUrl::parse(&format!("http://127.0.0.1:{port}/a.tar")).unwrap().unwrap();
    let error = server.remote().heads(&[url]).unwrap_err();
    assert!(matches!(error, StoreError::Failed { .. }), "{error}");
    assert!(error.hint().unwrap().contains("start the same command again"));
}

fn shards(server: &FaultServer, count: usize) -> (Arc<Remote>, Vec<ShardUrl>) {
    let remote = server.remote();
    let url = format!("http://127.0.0.1:{}/bucket/{{00..{:02}}}.tar", server.port, count - 1);
    let list = ShardList::expand_with(&[url], None, &remote).unwrap();
    (remote, list.0)
}

fn spool(folder: &Path, bytes_max: u64) -> SpoolOptions {
    SpoolOptions { folder: folder.join("spool"), bytes_max }
}

#[test]
fn fetched_shards_have_no_names_and_stay_within_the_bound() {
    let bytes = content(100_000, 6);
    let server = FaultServer::start(bytes.clone(), Some("\"a\""), &[], Fault::None);
    let (remote, list) = shards(&server, 6);
    assert_eq!(list.iter().map(|s| s.name.as_str()).collect::<Vec<_>>()[4..], ["04.tar", "05.tar"]);
    let folder = tempfile::tempdir().unwrap();
    let run =
        Spool::start(list.iter(), Some(remote.clone()), spool(folder.path(), 250_000)).unwrap();
    let stop = AtomicBool::new(false);
    let first = run.open(&list[0], &stop).unwrap();
    let second = run.open(&list[1], &stop).unwrap();
    assert!(*first == *bytes && *second == *bytes);
    assert_eq!(first.identity(), &ShardIdentity { bytes: 100_000, etag: "etag-a".into() });
    assert_eq!(first.identity(), &identity(&list[0], Some(&remote)).unwrap());
    // Two of 100,000 bytes are held: a third has no room, however long one waits.
    assert_eq!(server.gets.load(Ordering::SeqCst), 2);
    assert_eq!(std::fs::read_dir(folder.path().join("spool")).unwrap().count(), 0);
    drop(first);
    assert!(*run.open(&list[2], &stop).unwrap() == *bytes);
    drop(second);
    for shard in &list[3..] {
        assert!(*run.open(shard, &stop).unwrap() == *bytes);
    }
}

#[test]
fn a_shard_without_an_etag_is_known_by_its_ends() {
    let bytes = content(200_000, 7);
    let server = FaultServer::start(bytes.clone(), None, &[], Fault::None);
    let (remote, list) = shards(&server, 1);
    let expected = ShardIdentity::of_bytes(&bytes);
    assert_eq!(identity(&list[0], Some(&remote)).unwrap(), expected);
    let folder = tempfile::tempdir().unwrap();
    let run = Spool::start(list.iter(), Some(remote), spool(folder.path(), 1 << 20)).unwrap();
    assert_eq!(run.open(&list[0], &AtomicBool::new(false)).unwrap().identity(), &expected);
}

#[test]
fn a_shard_above_the_bound_is_refused_and_the_next_ones_come() {
    let server = FaultServer::start(content(1000, 8), Some("\"a\""), &[], Fault::None);
    let (remote, list) = shards(&server, 1);
    let folder = tempfile::tempdir().unwrap();
    let run = Spool::start(list.iter(), Some(remote), spool(folder.path(), 999)).unwrap();
    let error = run.open(&list[0], &AtomicBool::new(false)).map(|_| ()).unwrap_err();
    assert!(
        error.to_string().ends_with(
            "1000 bytes, above the limit of 999 for all fetched shards \
                                         together"
        ),
        "{error}"
    );
}

#[test]
fn a_stopped_job_waits_for_no_store() {
    let server = FaultServer::start(content(1000, 8), Some("\"a\""), &[], Fault::Stall(3));
    let (remote, list) = shards(&server, 1);
    let folder = tempfile::tempdir().unwrap();
    let run = Spool::start(list.iter(), Some(remote), spool(folder.path(), 1000)).unwrap();
    let error = run.open(&list[0], &AtomicBool::new(true)).map(|_| ()).unwrap_err();
    assert!(matches!(error, StoreError::Stopped { .. }), "{error}");
}

#[test]
fn names_on_a_web_server_are_asked_for_one_by_one() {
    let server = FaultServer::start(content(10, 8), Some("\"a\""), &[], Fault::None);
    let (_, list) = shards(&server, 40);
    assert!(list.iter().all(|s| matches!(&s.place, ShardPlace::Remote(_, i) if i.bytes == 10)));
    let glob = format!("http://127.0.0.1:{}/bucket/", server.port);
    let error = ShardList::expand_with(&[glob], None, &server.remote()).unwrap_err();
    assert!(format!("{:?}", error).contains("has no list of its files"), "{error:?}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]
    #[test]
    fn any_row_of_faults_ends_in_the_right_bytes_or_an_error(
        plan in prop::collection::vec(prop_oneof![
            (0..60_000usize).prop_map(Fault::Cut),
            (0..60_000usize).prop_map(Fault::Short),
            (1..9usize).prop_map(Fault::Long),
            Just(Fault::Status(503)), Just(Fault::Status(416)), Just(Fault::Silence),
            Just(Fault::Garbage), Just(Fault::Replaced), Just(Fault::OtherEtag),
            Just(Fault::OtherLength), Just(Fault::None),
        ], 0..8),
        is_s3 in any::<bool>(),
    ) {
        let bytes = content(50_000, 10);
        let server = FaultServer::start(bytes.clone(), Some("\"a\""), &plan, Fault::None);
        if let Ok(found) = server.fetch(if is_s3 { "s3" } else { "http" }) {
            prop_assert!(found == bytes);
        }
    }
}
