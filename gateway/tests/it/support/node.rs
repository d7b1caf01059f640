//! A node as a process of its own.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use super::websocket::{self, Received, Ws};
use super::{http, until, within};

/// The rules of a node unless a test brings its own.
pub const RULES: &str = include_str!("rules.toml");

/// The neighbour's own address, so that limits per address leave it alone.
const NEIGHBOUR: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 9);

/// How a node is started.
pub struct Launch<'a> {
    /// The sections of the configuration file before the namespaces.
    pub settings: &'a str,
    /// The namespaces.
    pub rules: &'a str,
    /// Whether a neighbour stays connected during the test.
    pub neighbour: bool,
}

impl Default for Launch<'_> {
    fn default() -> Self {
        Self { settings: "", rules: RULES, neighbour: true }
    }
}

/// A running node.
pub struct Node {
    child: Child,
    pub public: SocketAddr,
    pub internal: SocketAddr,
    log: Lines,
    directory: TempDir,
    neighbour: Option<Neighbour>,
    readers: JoinSet<()>,
}

type Lines = Arc<Mutex<Vec<String>>>;

impl Node {
    /// Starts a node with these settings and the usual rules.
    pub async fn start(settings: &str) -> Self {
        Self::launch(Launch { settings, ..Launch::default() }).await
    }

    /// Starts a node.
    pub async fn launch(launch: Launch<'_>) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let file = directory.path().join("carillon.toml");
        std::fs::write(&file, format!("{}\n{}", launch.settings, launch.rules)).expect("write");
        let mut child = command()
            .arg("--config")
            .arg(&file)
            .args(["--listen", "127.0.0.1:0", "--internal-listen", "127.0.0.1:0"])
            .spawn()
            .expect("start the binary");
        let log = Lines::default();
        let mut readers = JoinSet::new();
        readers.spawn(read_lines(child.stdout.take().expect("stdout"), log.clone()));
        readers.spawn(read_lines(child.stderr.take().expect("stderr"), log.clone()));
        let mut listening = None;
        until("the node listens", async || {
            if let Some(status) = child.try_wait().expect("wait") {
                panic!("the node ended with {status}: {:?}", lines(&log));
            }
            listening = lines(&log).iter().find_map(|line| listening_addresses(line));
            listening.is_some()
        })
        .await;
        let (public, internal) = listening.expect("addresses");
        let neighbour = match launch.neighbour {
            true => Some(Neighbour::connect(public).await),
            false => None,
        };
        Self { child, public, internal, log, directory, neighbour, readers }
    }

    /// The configuration file.
    pub fn config_file(&self) -> PathBuf {
        self.directory.path().join("carillon.toml")
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id().expect("a process that has not been waited for")
    }

    /// Sends a signal by its name.
    pub async fn signal(&self, name: &str) {
        let command = format!("kill -{name} {}", self.pid());
        let status = Command::new("sh").args(["-c", &command]).status().await.expect("sh");
        assert!(status.success(), "{command}");
    }

    /// Waits for the end of the process.
    pub async fn exit(&mut self) -> ExitStatus {
        within("the node exits", self.child.wait()).await.expect("wait")
    }

    /// Whether the process has ended.
    pub fn has_exited(&mut self) -> bool {
        self.child.try_wait().expect("wait").is_some()
    }

    /// What was logged so far.
    pub fn log(&self) -> Vec<String> {
        lines(&self.log)
    }

    /// The neighbour sends an event and gets its ack.
    pub async fn neighbour_echo(&self, after: &str) {
        if let Some(neighbour) = &self.neighbour {
            neighbour.echo(after).await;
        }
    }

    /// The neighbour leaves, so that nobody is left.
    pub async fn dismiss_neighbour(&mut self) {
        self.neighbour = None;
        until("the neighbour has left", async || {
            self.metrics().await["carillon_sockets{namespace=\"/neighbour\"}"] == 0.0
        })
        .await;
    }

    /// All metrics by name and labels, as they are written.
    pub async fn metrics(&self) -> HashMap<String, f64> {
        let response = http::get(self.internal, "/metrics").await;
        assert_eq!(response.status, 200);
        parse_metrics(&response.text())
    }

    /// One metric; 0 if its labels have not been seen.
    pub async fn metric(&self, name: &str) -> f64 {
        self.metrics().await.get(name).copied().unwrap_or_default()
    }

    /// Waits until a metric has a value.
    pub async fn until_metric(&self, name: &str, value: f64) {
        let mut seen = 0.0;
        let waited = tokio::time::timeout(super::DEADLINE, async {
            loop {
                seen = self.metric(name).await;
                if seen == value {
                    return;
                }
                tokio::time::sleep(super::LOOK_EVERY).await;
            }
        });
        assert!(waited.await.is_ok(), "{name} is {seen} and not {value}");
    }

    /// How many sessions were closed for a reason.
    pub async fn n_closed(&self, reason: &str) -> f64 {
        self.metric(&format!("carillon_sessions_closed_total{{reason=\"{reason}\"}}")).await
    }

    /// Resident memory in bytes.
    pub fn resident_bytes(&self) -> i64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid()));
        let status = status.expect("the process is there");
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("VmRSS");
        let kilobytes = line.split_whitespace().nth(1).expect("a number");
        kilobytes.parse::<i64>().expect("a number") * 1024
    }

    /// Open file descriptors.
    pub fn n_descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.pid())).expect("the process is there").count()
    }

    /// What has to be true after every test, whatever was done to the node.
    pub async fn finish(self) {
        self.finish_with_errors(0).await;
    }

    /// The same for a test that makes the node log a number of errors.
    pub async fn finish_with_errors(mut self, n_errors: usize) {
        self.neighbour_echo("the test").await;
        assert!(!self.has_exited(), "the node is alive: {:?}", self.log());
        self.check_log(n_errors);
        self.child.kill().await.expect("kill");
    }

    /// No panic, and as many errors as were asked for.
    pub fn check_log(&self, n_errors: usize) {
        let log = self.log();
        let panics: Vec<_> = log.iter().filter(|line| line.contains("panicked")).collect();
        assert!(panics.is_empty(), "the node panicked: {panics:?}");
        let errors: Vec<_> =
            log.iter().filter(|line| line.contains(r#""level":"ERROR""#)).collect();
        assert_eq!(errors.len(), n_errors, "errors in the log: {errors:?}");
    }

    /// Reads what the process wrote before it ended.
    pub async fn drain_log(&mut self) {
        within("the log ends", async { while self.readers.join_next().await.is_some() {} }).await;
    }
}

/// The binary with an empty environment.
pub fn command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_carillon"));
    command.env_clear().stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.kill_on_drop(true);
    command
}

/// Reads the text form of Prometheus and complains about every line that is not part of it.
pub fn parse_metrics(text: &str) -> HashMap<String, f64> {
    let mut metrics = HashMap::new();
    for line in text.lines().filter(|line| !line.is_empty()) {
        if let Some(comment) = line.strip_prefix("# ") {
            assert!(comment.starts_with("HELP ") || comment.starts_with("TYPE "), "{line}");
            continue;
        }
        let (name, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("a metric: {line}"));
        let value = value.parse().unwrap_or_else(|_| panic!("a number: {line}"));
        assert!(metrics.insert(name.to_owned(), value).is_none(), "twice: {name}");
    }
    metrics
}

fn lines(log: &Lines) -> Vec<String> {
    log.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

async fn read_lines(source: impl AsyncRead + Unpin, log: Lines) {
    let mut source = BufReader::new(source).lines();
    while let Ok(Some(line)) = source.next_line().await {
        log.lock().unwrap_or_else(PoisonError::into_inner).push(line);
    }
}

fn listening_addresses(line: &str) -> Option<(SocketAddr, SocketAddr)> {
    let line: serde_json::Value = serde_json::from_str(line).ok()?;
    if line["event"] != "listening" {
        return None;
    }
    let address = |key: &str| line[key].as_str()?.parse().ok();
    Some((address("public")?, address("internal")?))
}

/// A well-behaved client in a namespace of its own, which answers heartbeats during the test.
struct Neighbour {
    echoes: mpsc::Sender<oneshot::Sender<()>>,
    _task: JoinSet<()>,
}

impl Neighbour {
    async fn connect(address: SocketAddr) -> Self {
        let (mut ws, _) = Ws::open_from(NEIGHBOUR.into(), address, websocket::TARGET).await;
        ws.enter("/neighbour", "").await;
        let (echoes, asked) = mpsc::channel(1);
        let mut task = JoinSet::new();
        task.spawn(live(ws, asked));
        Self { echoes, _task: task }
    }

    async fn echo(&self, after: &str) {
        let (answered, answer) = oneshot::channel();
        let asked = self.echoes.send(answered).await;
        assert!(asked.is_ok(), "after {after}: the neighbour was disconnected");
        let answer = within(&format!("after {after}: the neighbour's echo"), answer).await;
        assert!(answer.is_ok(), "after {after}: the neighbour was disconnected");
    }
}

async fn live(mut ws: Ws, mut asked: mpsc::Receiver<oneshot::Sender<()>>) {
    let mut n_echoes = 0;
    let mut waiting: Option<oneshot::Sender<()>> = None;
    loop {
        tokio::select! {
            next = asked.recv(), if waiting.is_none() => {
                let Some(next) = next else { return };
                n_echoes += 1;
                ws.send(&format!("42/neighbour,{n_echoes}[\"echo\",{n_echoes}]")).await;
                waiting = Some(next);
            }
            received = ws.quiet_next() => match received {
                Received::Text(text) if text == format!("43/neighbour,{n_echoes}[{n_echoes}]") => {
                    if let Some(answered) = waiting.take() {
                        let _ = answered.send(());
                    }
                }
                Received::Closed(_) => return,
                _ => {}
            }
        }
    }
}
