//! A `redis-server` of a test's own, and a client that writes every byte itself.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::Stdio;

use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

use super::{until, within};

/// Runs until it is dropped.
pub struct Redis {
    address: SocketAddr,
    _child: Child,
    _directory: TempDir,
}

impl Redis {
    /// Starts a server and waits until it answers.
    pub async fn start() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind");
        let address = listener.local_addr().expect("address");
        drop(listener);
        let child = Command::new("redis-server")
            .args(["--bind", "127.0.0.1", "--save", "", "--port"])
            .arg(address.port().to_string())
            .arg("--dir")
            .arg(directory.path())
            .stdout(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("redis-server is installed");
        until("Redis answers", async || TcpStream::connect(address).await.is_ok()).await;
        Self { address, _child: child, _directory: directory }
    }

    /// Its address for a node, with user and password if there are some.
    pub fn url(&self, user: &str) -> String {
        format!("redis://{user}{}", self.address)
    }

    /// A connection.
    pub async fn connect(&self) -> RedisClient {
        let stream = TcpStream::connect(self.address).await.expect("connect");
        RedisClient(BufReader::new(stream))
    }
}

/// A connection to Redis.
pub struct RedisClient(BufReader<TcpStream>);

impl RedisClient {
    /// Runs a command.
    pub async fn run(&mut self, arguments: &[&str]) -> Value {
        let mut bytes = format!("*{}\r\n", arguments.len());
        for argument in arguments {
            bytes.push_str(&format!("${}\r\n{argument}\r\n", argument.len()));
        }
        self.0.write_all(bytes.as_bytes()).await.expect("write");
        self.next().await
    }

    /// Takes the next reply, or the next message of a subscription.
    pub async fn next(&mut self) -> Value {
        within("Redis replies", Box::pin(self.read())).await
    }

    async fn read(&mut self) -> Value {
        let mut line = String::new();
        self.0.read_line(&mut line).await.expect("read");
        let line = line.trim_end();
        let (kind, rest) = line.split_at_checked(1).expect("a reply");
        match kind {
            "+" => rest.into(),
            "-" => panic!("Redis refuses: {rest}"),
            ":" => rest.parse::<i64>().expect("a number").into(),
            "$" if rest == "-1" => Value::Null,
            "$" => {
                let mut text = vec![0; rest.parse::<usize>().expect("a length") + 2];
                self.0.read_exact(&mut text).await.expect("read");
                text.truncate(text.len() - 2);
                String::from_utf8_lossy(&text).into_owned().into()
            }
            "*" => {
                let mut items = Vec::new();
                for _ in 0..rest.parse::<i64>().expect("a length") {
                    items.push(Box::pin(self.read()).await);
                }
                items.into()
            }
            _ => panic!("{line:?} is no reply"),
        }
    }
}
