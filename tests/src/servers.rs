//! Object stores on this machine, which speak the protocols of the real ones.
//!
//! In: nothing. Out: a [`Cloud`] with an empty bucket, and the variables that lead to it; or `None`
//! and a line that says what is not installed. `scripts/setup.sh --tests` installs them. A
//! [`Proxy`] stands between a program and such a server and disturbs them on purpose.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use catlip_pipeline::prep::Stores;
use catlip_pipeline::source::object::RemoteOptions;
use catlip_pipeline::source::store::RemoteUrl;

use crate::root;

/// A server that ends with the test, however that ends.
pub struct Server {
    child: Child,
    /// Its port on 127.0.0.1.
    pub port: u16,
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

impl Server {
    /// Starts `command` on a free port; `None` if there is no such program.
    ///
    /// # Panics
    ///
    /// If it neither answers nor ends within a minute.
    pub fn start(command: impl FnOnce(u16) -> Command) -> Option<Self> {
        let port = TcpListener::bind("127.0.0.1:0").ok()?.local_addr().ok()?.port();
        let server = command(port);
        // The shell sees the end of its input when this process is gone, and ends the server.
        let mut command = Command::new("sh");
        command.args(["-c", r#""$@" </dev/null & read -r _; kill $! 2>/dev/null"#, "sh"]);
        command.arg(server.get_program()).args(server.get_args());
        if let Some(folder) = server.get_current_dir() {
            command.current_dir(folder);
        }
        let is_there = Command::new("sh")
            .args(["-c", r#"command -v "$1""#, "sh"])
            .arg(server.get_program())
            .stdout(Stdio::null())
            .status();
        if !is_there.is_ok_and(|found| found.success()) {
            return None;
        }
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut server = Self { child: command.spawn().ok()?, port };
        // Python needs seconds to import what moto needs; a busy machine more.
        for _ in 0..600 {
            if TcpStream::connect(("127.0.0.1", port)).is_ok() {
                return Some(server);
            }
            if server.child.try_wait().is_ok_and(|ended| ended.is_some()) {
                return None;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        panic!("the server on port {port} does not answer");
    }

    /// One request without a body; the status line of the answer.
    ///
    /// # Panics
    ///
    /// If the server is gone.
    pub fn request(&self, method: &str, path: &str) -> String {
        let text =
            format!("{method} {path} HTTP/1.0\r\nHost: 127.0.0.1\r\nContent-Length: 0\r\n\r\n");
        let mut answer = String::new();
        let asked = TcpStream::connect(("127.0.0.1", self.port)).and_then(|mut stream| {
            stream.write_all(text.as_bytes())?;
            let _ = stream.read_to_string(&mut answer);
            Ok(())
        });
        assert!(asked.is_ok(), "{asked:?}");
        answer.lines().next().unwrap_or_default().to_owned()
    }
}

/// Where `scripts/setup.sh --tests` puts what it installs, else the name itself.
fn installed(path: &str, name: &str) -> PathBuf {
    let own = root().join(".deps").join(path);
    if own.is_file() { own } else { name.into() }
}

/// An empty bucket of a store.
pub struct Cloud {
    /// The port of its server.
    pub port: u16,
    /// `s3://lake-0` or the like.
    pub root: String,
    /// The variables of the environment that lead to it.
    pub variables: Vec<(String, String)>,
    /// Servers that no other test uses.
    _server: Option<(Server, tempfile::TempDir)>,
}

/// The moto of this test program: it takes seconds to start, and has room for many buckets.
fn moto() -> Option<&'static Server> {
    static MOTO: OnceLock<Option<Server>> = OnceLock::new();
    let start = || {
        Server::start(|port| {
            let mut command = Command::new(installed("moto/bin/moto_server", "moto_server"));
            command.args(["-H", "127.0.0.1", "-p", &port.to_string()]);
            command
        })
    };
    MOTO.get_or_init(start).as_ref()
}

/// Variables that lead to an S3 server.
pub fn s3_variables(port: u16) -> Vec<(String, String)> {
    let variables = [
        ("AWS_ENDPOINT_URL", format!("http://127.0.0.1:{port}")),
        ("AWS_ACCESS_KEY_ID", "test".to_owned()),
        ("AWS_SECRET_ACCESS_KEY", "test".to_owned()),
        ("AWS_REGION", "us-east-1".to_owned()),
    ];
    variables.map(|(key, value)| (key.to_owned(), value)).to_vec()
}

impl Cloud {
    /// S3, spoken by moto.
    ///
    /// # Panics
    ///
    /// If it makes no bucket.
    pub fn s3() -> Option<Self> {
        static BUCKETS: AtomicUsize = AtomicUsize::new(0);
        let Some(server) = moto() else {
            println!("skipped: no moto_server");
            return None;
        };
        let name = format!("lake-{}", BUCKETS.fetch_add(1, Ordering::Relaxed));
        let made = server.request("PUT", &format!("/{name}"));
        assert!(made.contains(" 200 "), "{made}");
        let (port, root) = (server.port, format!("s3://{name}"));
        Some(Self { port, root, variables: s3_variables(port), _server: None })
    }

    /// S3, spoken by s3s-fs over a folder: without a pause of its own, unlike moto.
    pub fn quick_s3() -> Option<Self> {
        let folder = tempfile::tempdir().ok()?;
        std::fs::create_dir(folder.path().join("lake")).ok()?;
        let server = Server::start(|port| {
            let mut command = Command::new(installed("s3s-fs/bin/s3s-fs", "s3s-fs"));
            command.args(["--access-key", "test", "--secret-key", "test", "--host", "127.0.0.1"]);
            command.args(["--port", &port.to_string()]).arg(folder.path());
            command
        });
        let Some(server) = server else {
            println!("skipped: no s3s-fs");
            return None;
        };
        let (port, root) = (server.port, "s3://lake".to_owned());
        Some(Self { port, root, variables: s3_variables(port), _server: Some((server, folder)) })
    }

    /// Azure's blobs, spoken by azurite.
    ///
    /// # Panics
    ///
    /// If it makes no container.
    pub fn azure() -> Option<Self> {
        let folder = tempfile::tempdir().ok()?;
        let server = Server::start(|port| {
            let path = installed("azurite/node_modules/.bin/azurite-blob", "azurite-blob");
            let mut command = Command::new(path);
            command.args(["--silent", "--skipApiVersionCheck", "--blobPort", &port.to_string()]);
            command.arg("--location").arg(folder.path());
            command
        });
        let Some(server) = server else {
            println!("skipped: no azurite-blob");
            return None;
        };
        let account = format!("http://127.0.0.1:{}/devstoreaccount1", server.port);
        let signed =
            Command::new("python3").args(["-c", AZURE_CONTAINER, &account, AZURE_KEY]).output();
        let Ok(signed) = signed else {
            println!("skipped: no python3, which makes azurite's container");
            return None;
        };
        assert!(signed.status.success(), "{}", String::from_utf8_lossy(&signed.stderr));
        let variables = [
            ("AZURE_STORAGE_ACCOUNT_NAME", "devstoreaccount1".to_owned()),
            ("AZURE_STORAGE_ACCOUNT_KEY", AZURE_KEY.to_owned()),
            ("AZURE_STORAGE_ENDPOINT", account),
            ("AZURE_ALLOW_HTTP", "true".to_owned()),
        ]
        .map(|(key, value)| (key.to_owned(), value));
        let variables = variables.to_vec();
        let (port, root) = (server.port, "az://lake".to_owned());
        Some(Self { port, root, variables, _server: Some((server, folder)) })
    }

    /// Google's XML protocol, spoken by moto: it is S3's, but for the name of the condition under
    /// which an object is created. Of Google's own server nothing is tested here.
    pub fn google() -> Option<Self> {
        let moto = Self::s3()?;
        let proxy = Proxy::start(moto.port, |head| {
            let is_kept = |line: &&str| !line.to_lowercase().starts_with("authorization:");
            let lines =
                head.lines().filter(is_kept).map(|line| match line.to_lowercase().as_str() {
                    "x-goog-if-generation-match: 0" => "If-None-Match: *",
                    _ => line,
                });
            // Whoever says no name may not read; moto checks no signature.
            let name = "Authorization: AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/s3/\
                        aws4_request, SignedHeaders=host, Signature=0";
            Act::PassAs(lines.chain([name]).map(|line| format!("{line}\r\n")).collect())
        });
        let variables = [
            ("GOOGLE_BASE_URL", format!("http://127.0.0.1:{}", proxy.port)),
            ("GOOGLE_SERVICE_ACCOUNT_KEY", GOOGLE_KEY.to_owned()),
        ];
        let variables = variables.map(|(key, value)| (key.to_owned(), value)).to_vec();
        let root = moto.root.replace("s3://", "gs://");
        Some(Self { root, variables, ..moto })
    }

    /// The way to it.
    pub fn stores(&self) -> Stores {
        stores(&self.variables)
    }
}

/// The way to stores that such variables give.
pub fn stores(variables: &[(String, String)]) -> Stores {
    let variables = variables.iter().map(|(key, value)| (key.into(), value.into()));
    let options = RemoteOptions::new(variables, std::env::temp_dir());
    let pause_first = Duration::from_millis(5);
    Stores::new(RemoteOptions { retries: 3, pause_first, ..options })
}

/// The objects below a URL, by their names there.
///
/// # Panics
///
/// If the store does not give them.
pub fn objects_of(stores: &Stores, url: &str) -> Vec<(String, Vec<u8>)> {
    let read = || -> Result<_, Box<dyn std::error::Error>> {
        let root = RemoteUrl::parse(url)?.ok_or("no URL")?;
        let (remote, folder) = (stores.remote()?, stores.folder(Path::new(url))?);
        let mut objects = Vec::new();
        for (found, _) in remote.list(&root, true)? {
            let name = found.key[root.key.len()..].trim_start_matches('/').to_owned();
            objects.push((name.clone(), folder.read(&name)?));
        }
        Ok(objects)
    };
    match read() {
        Ok(objects) => objects,
        Err(error) => panic!("{url}: {error}"),
    }
}

/// An account that asks nobody for a token.
const GOOGLE_KEY: &str = r#"{"disable_oauth": true, "client_email": "", "private_key": "",
    "private_key_id": ""}"#;

/// The key that every azurite has.
const AZURE_KEY: &str = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/\
                         K1SZFPTOtr/KBHBeksoGMGw==";

/// Makes the container `lake`.
const AZURE_CONTAINER: &str = r#"
import base64, email.utils, hashlib, hmac, sys, urllib.request
account = sys.argv[1]
key = base64.b64decode(sys.argv[2])
date = email.utils.formatdate(usegmt=True)
text = "PUT" + "\n" * 12 + f"x-ms-date:{date}\nx-ms-version:2021-08-06\n" \
    "/devstoreaccount1/devstoreaccount1/lake\nrestype:container"
sign = base64.b64encode(hmac.new(key, text.encode(), hashlib.sha256).digest()).decode()
headers = {"x-ms-date": date, "x-ms-version": "2021-08-06",
           "Authorization": "SharedKey devstoreaccount1:" + sign}
request = urllib.request.Request(account + "/lake?restype=container", method="PUT", headers=headers)
urllib.request.urlopen(request)
"#;

/// What a proxy does with one request.
#[derive(Clone, Debug, PartialEq)]
pub enum Act {
    /// Passes it on, and the answer back.
    Pass,
    /// Passes it on with another head.
    PassAs(String),
    /// Passes it on after so long, as a server far away would have it.
    PassAfter(Duration),
    /// Passes it on and closes the line without the answer.
    Lose,
    /// Answers with that status line and body; the server hears nothing.
    Answer(&'static str, &'static str),
    /// Closes the line; the server hears nothing.
    Close,
}

/// A server that passes requests on to another one, as it is told for each.
pub struct Proxy {
    /// Its port on 127.0.0.1.
    pub port: u16,
}

impl Proxy {
    /// Begins; `act` sees the head of each request, its line first.
    ///
    /// # Panics
    ///
    /// If there is no free port.
    pub fn start(to: u16, act: impl FnMut(&str) -> Act + Send + 'static) -> Self {
        let Ok(listener) = TcpListener::bind("127.0.0.1:0") else { panic!("no free port") };
        let port = listener.local_addr().map_or(0, |address| address.port());
        let act = Arc::new(Mutex::new(act));
        // The threads end with the test's process.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let act = act.clone();
                std::thread::spawn(move || {
                    let act = |head: &str| match act.lock() {
                        Ok(mut act) => act(head),
                        Err(_) => Act::Close,
                    };
                    // A line that breaks is what a proxy for faults is for.
                    let _ = pass(&stream, to, act);
                });
            }
        });
        Self { port }
    }
}

/// One request of a line, which is closed behind the answer.
fn pass(stream: &TcpStream, to: u16, act: impl Fn(&str) -> Act) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    let (mut head, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let lower = line.to_lowercase();
        if let Some(value) = lower.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap_or(0);
        }
        if line.trim().is_empty() {
            break;
        }
        if !lower.starts_with("connection:") && !lower.starts_with("expect:") {
            head.push_str(&line);
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let act = act(&head);
    let head = match &act {
        Act::Answer(status, text) => {
            let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n", text.len());
            return (&mut &*stream)
                .write_all(format!("{head}Connection: close\r\n\r\n{text}").as_bytes());
        }
        Act::Close => return Ok(()),
        Act::PassAs(head) => head,
        Act::Pass | Act::PassAfter(_) | Act::Lose => &head,
    };
    if let Act::PassAfter(latency) = act {
        std::thread::sleep(latency);
    }
    let mut server = TcpStream::connect(("127.0.0.1", to))?;
    server.write_all(format!("{head}Connection: close\r\n\r\n").as_bytes())?;
    server.write_all(&body)?;
    let mut answer = Vec::new();
    server.read_to_end(&mut answer)?;
    match act {
        Act::Lose => Ok(()),
        _ => (&mut &*stream).write_all(&answer),
    }
}
