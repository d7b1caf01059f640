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

/// How long nodes may take to join the cluster. Under Valgrind that is long.
const JOIN_TIMEOUT: Duration = Duration::from_secs(60);

/// The pause between two attempts.
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
            pause();
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

    /// How many connections subscribe to a channel itself.
    fn subscribers(&self, channel: &str) -> Result<usize> {
        let answer = self.ask(&format!("PUBSUB NUMSUB {channel}"))?;
        let count = answer.lines().rev().find_map(|line| line.strip_prefix(':'));
        count.context("read an answer of Redis")?.trim().parse().context("read an answer of Redis")
    }

    /// Waits until so many nodes take part in the cluster: before that, what one sends is lost for the others.
    pub fn joined_by(&self, n_nodes: usize) -> Result<()> {
        // Carillon and Node.js servers subscribe to it last.
        let deadline = Instant::now() + JOIN_TIMEOUT;
        while self.subscribers("socket.io-request#/#")? < n_nodes {
            if Instant::now() >= deadline {
                bail!("not all of {n_nodes} nodes have joined the cluster");
            }
            pause();
        }
        Ok(())
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

/// Nothing tells when a foreign process has got so far.
#[expect(clippy::disallowed_methods, reason = "the program has one thread, and nothing else to do")]
fn pause() {
    thread::sleep(RETRY);
}

impl Drop for Redis {
    fn drop(&mut self) {
        // Already ended is as good as killed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
