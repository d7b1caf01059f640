//! A `redis-server` of a test's own.

use super::{PATIENCE, soon};
use redis::aio::MultiplexedConnection;
use std::{
    net::TcpListener,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};
use tempfile::TempDir;

/// Runs until it is dropped.
pub struct RedisServer {
    folder: TempDir,
    port: u16,
    arguments: Vec<String>,
    /// The configuration, if this is a Sentinel.
    sentinel: Option<PathBuf>,
    process: Option<Child>,
}

impl RedisServer {
    /// Starts a server and waits until it answers.
    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// The same with more arguments.
    pub async fn start_with(arguments: &[&str]) -> Self {
        loop {
            let mut server = Self::stopped(arguments);
            // Between the choice of a port and the start, another process may have taken it.
            if soon("the start of Redis", server.try_start()).await {
                return server;
            }
        }
    }

    /// Starts a Sentinel with these lines in its configuration, which it rewrites.
    #[allow(dead_code, reason = "only the tests of the bus, which share this file, need it")]
    pub async fn start_sentinel(lines: &str) -> Self {
        loop {
            let mut server = Self::stopped(&[]);
            let path = server.folder.path().join("sentinel.conf");
            std::fs::write(&path, lines).expect("a file can be written");
            server.sentinel = Some(path);
            if soon("the start of a Sentinel", server.try_start()).await {
                return server;
            }
        }
    }

    /// A server that is yet to be started, with an address that nobody listens on.
    pub fn stopped(arguments: &[&str]) -> Self {
        Self {
            folder: tempfile::tempdir().expect("a folder"),
            port: free_port(),
            arguments: arguments.iter().map(ToString::to_string).collect(),
            sentinel: None,
            process: None,
        }
    }

    /// Starts the server on its port.
    pub async fn start_again(&mut self) {
        assert!(soon("the start of Redis", self.try_start()).await, "the port was taken");
    }

    /// Starts the server, and says whether it got its port.
    async fn try_start(&mut self) -> bool {
        assert!(self.process.is_none(), "the server runs");
        let mut command = Command::new("redis-server");
        match &self.sentinel {
            Some(path) => command.arg(path).arg("--sentinel"),
            None => command.args(["--save", "", "--appendonly", "no"]),
        };
        let process = command
            .args(["--bind", "127.0.0.1"])
            .args(["--port", &self.port.to_string()])
            .args(&self.arguments)
            .arg("--dir")
            .arg(self.folder.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let process = process.expect("redis-server is installed and on the PATH");
        let id = process.id();
        self.process = Some(process);
        // Without a plain port there is nothing to ask; who wants TLS waits for its own link.
        if self.arguments.iter().any(|argument| argument == "--tls-port") {
            return true;
        }
        loop {
            let process = self.process.as_mut().expect("started above");
            if process.try_wait().expect("a child can be looked at").is_some() {
                self.process = None;
                return false;
            }
            if self.process_id().await == Some(id) {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// The process id of the server that answers at the address, which may be another test's.
    async fn process_id(&self) -> Option<u32> {
        let client = redis::Client::open(self.url()).expect("a valid address");
        let mut connection = client.get_multiplexed_async_connection().await.ok()?;
        let info: redis::RedisResult<redis::InfoDict> =
            redis::cmd("INFO").arg("server").query_async(&mut connection).await;
        info.ok()?.get("process_id")
    }

    /// Ends the server at once.
    pub fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            // It may have ended by itself.
            let _ = process.kill();
            process.wait().expect("a child can be waited for");
        }
    }

    /// Stops the process in its tracks; it still holds its connections and takes new ones.
    pub fn freeze(&self) {
        self.signal("-STOP");
    }

    /// Lets a stopped process go on.
    pub fn thaw(&self) {
        self.signal("-CONT");
    }

    fn signal(&self, signal: &str) {
        let id = self.process.as_ref().expect("the server runs").id().to_string();
        let status = Command::new("kill").args([signal, &id]).status().expect("kill is installed");
        assert!(status.success(), "kill {signal} {id}");
    }

    /// The port it listens on.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its address.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// A connection for the test itself, as soon as there can be one.
    pub async fn connection(&self) -> MultiplexedConnection {
        let client = redis::Client::open(self.url()).expect("a valid address");
        let patient = redis::AsyncConnectionConfig::new().set_response_timeout(Some(PATIENCE));
        loop {
            let connecting = client.get_multiplexed_async_connection_with_config(&patient);
            if let Ok(connection) = connecting.await {
                return connection;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Runs one command.
    pub async fn run<T: redis::FromRedisValue>(&self, command: &[&str]) -> T {
        let mut cmd = redis::cmd(command[0]);
        cmd.arg(&command[1..]);
        let mut connection = soon("a connection", self.connection()).await;
        cmd.query_async(&mut connection).await.expect("the command is valid")
    }

    /// Publishes bytes as some other program would.
    pub async fn publish(&self, channel: &str, payload: &[u8]) {
        let mut connection = soon("a connection", self.connection()).await;
        let publish = redis::cmd("PUBLISH").arg(channel).arg(payload).to_owned();
        let _: i64 = publish.query_async(&mut connection).await.expect("published");
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A port that nobody listens on, below those that the kernel gives to outgoing connections.
fn free_port() -> u16 {
    loop {
        let port = rand::random_range(15_000..32_000);
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}
