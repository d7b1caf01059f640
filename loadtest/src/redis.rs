//! A Redis of our own between the nodes of a cluster.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::server::pinned;

/// How long Redis may take to start or to answer.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The pause between two attempts to reach a Redis that has just been started.
const RETRY: Duration = Duration::from_millis(20);

/// A running Redis without persistence. Dropping it kills it.
pub struct Redis {
    child: Child,
    address: SocketAddr,
}

impl Redis {
    /// Starts `redis-server` and waits until it answers.
    pub fn start(core: Option<usize>) -> Result<Redis> {
        // Free when we looked; whoever takes it in between makes the start fail, and is told so.
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let mut line = pinned(core);
        line.extend(["redis-server", "--save", "", "--appendonly", "no"].map(str::to_owned));
        line.extend(
            ["--bind", "127.0.0.1", "--port", &address.port().to_string()].map(str::to_owned),
        );
        let child = Command::new(&line[0])
            .args(&line[1..])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .context("start redis-server")?;
        let redis = Redis { child, address };
        let deadline = Instant::now() + TIMEOUT;
        while redis.ask("PING").is_err() {
            if Instant::now() >= deadline {
                bail!("redis-server did not answer on {address}");
            }
            #[expect(
                clippy::disallowed_methods,
                reason = "nothing tells when a foreign process listens"
            )]
            thread::sleep(RETRY);
        }
        Ok(redis)
    }

    /// For the servers.
    pub fn url(&self) -> String {
        format!("redis://{}", self.address)
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// How many messages have been published since the start.
    pub fn published(&self) -> Result<u64> {
        let stats = self.ask("INFO commandstats")?;
        let line = stats.lines().find_map(|line| line.strip_prefix("cmdstat_publish:calls="));
        let calls = line.and_then(|line| line.split(',').next());
        calls.map_or(Ok(0), |calls| calls.parse().context("read the statistics of Redis"))
    }

    /// Sends one command and gives its answer, a line or a bulk string.
    fn ask(&self, command: &str) -> Result<String> {
        let mut stream = TcpStream::connect_timeout(&self.address, TIMEOUT)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        // QUIT ends the answer with the connection, so that it can be read to the end.
        stream.write_all(format!("{command}\r\nQUIT\r\n").as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        // Already ended is as good as killed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
