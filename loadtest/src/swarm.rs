//! Many clients on one poll, in one thread.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use mio::{Events, Interest, Poll, Token};

use crate::client::{Client, Progress};
use crate::fleet::Fleet;

/// How many handshakes are under way at once: more than a server needs to be busy, less than any listen backlog.
const HANDSHAKES_MAX: usize = 64;

/// One buffer for all clients; a burst of 16 messages fits.
const READ_BUFFER_BYTES: usize = 4096;

/// The longest wait for events before the caller's condition and deadline are looked at again.
const TURN: Duration = Duration::from_millis(20);

/// Clients of one fleet, its nodes in turn. Dropping the swarm closes them.
pub struct Swarm {
    addresses: Vec<SocketAddr>,
    poll: Poll,
    events: Events,
    clients: Vec<Client>,
    connected: usize,
    buffer: Box<[u8]>,
    out: Vec<u8>,
}

impl Swarm {
    /// A swarm without clients.
    pub fn new(fleet: &Fleet) -> Result<Swarm> {
        Ok(Swarm {
            addresses: fleet.addresses(),
            poll: Poll::new()?,
            events: Events::with_capacity(1024),
            clients: Vec::new(),
            connected: 0,
            buffer: vec![0; READ_BUFFER_BYTES].into_boxed_slice(),
            out: Vec::new(),
        })
    }

    /// A swarm of `count` connected clients.
    pub fn connected(fleet: &Fleet, count: usize, deadline: Instant) -> Result<Swarm> {
        let mut swarm = Swarm::new(fleet)?;
        swarm.grow(count, deadline)?;
        Ok(swarm)
    }

    /// Connects clients until there are `count`, TCP, upgrade and CONNECT each.
    pub fn grow(&mut self, count: usize, deadline: Instant) -> Result<()> {
        while self.connected < count {
            while self.clients.len() < count && self.clients.len() - self.connected < HANDSHAKES_MAX
            {
                let index = self.clients.len();
                let mut client = Client::start(self.addresses[index % self.addresses.len()])
                    .with_context(|| format!("open connection {index}"))?;
                self.poll.registry().register(client.source(), Token(index), Interest::READABLE)?;
                self.clients.push(client);
            }
            self.turn(TURN, &mut |_, _, _: &mut Vec<u8>| {})?;
            ensure!(
                Instant::now() < deadline,
                "{} of {count} clients were connected within the deadline",
                self.connected
            );
        }
        Ok(())
    }

    /// How many clients are connected.
    pub fn len(&self) -> usize {
        self.connected
    }

    /// The public socket id of a client.
    pub fn id(&self, client: usize) -> &str {
        self.clients[client].id()
    }

    /// Sends frames as one client, in one write.
    pub fn send(&mut self, client: usize, frames: &[u8]) -> Result<()> {
        self.clients[client].send(frames)
    }

    /// Handles events until `done` or the deadline; says whether it was done in time.
    pub fn run<F>(
        &mut self,
        deadline: Instant,
        work: &mut F,
        mut done: impl FnMut(&F) -> bool,
    ) -> Result<bool>
    where
        F: Work,
    {
        while !done(work) {
            if Instant::now() >= deadline {
                return Ok(false);
            }
            self.turn(TURN, &mut |client, packet, out: &mut Vec<u8>| {
                work.packet(client, packet, out);
            })?;
        }
        Ok(true)
    }

    /// Waits at most `wait` for events and handles them.
    pub fn turn<F>(&mut self, wait: Duration, work: &mut F) -> Result<()>
    where
        F: FnMut(usize, &[u8], &mut Vec<u8>),
    {
        match self.poll.poll(&mut self.events, Some(wait)) {
            Err(error) if error.kind() != std::io::ErrorKind::Interrupted => {
                return Err(error.into());
            }
            _ => {}
        }
        for event in &self.events {
            let Token(index) = event.token();
            let progress = self.clients[index]
                .read(&mut self.buffer, &mut self.out, &mut |packet, out| work(index, packet, out))
                .with_context(|| format!("client {index}"))?;
            if progress == Progress::Connected {
                self.connected += 1;
            }
        }
        Ok(())
    }
}

/// What a scenario does with what its clients receive.
pub trait Work {
    /// Takes a Socket.IO packet and appends the frames that the same client sends in answer.
    fn packet(&mut self, client: usize, packet: &[u8], out: &mut Vec<u8>);
}
