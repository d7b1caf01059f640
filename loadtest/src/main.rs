//! `carillon-bench`: measures Socket.IO servers with thousands of clients in one thread.
//!
//! A [`scenario`] drives a [`swarm`] of [`client`]s against a [`fleet`] of one or more [`server`]s and checks every message id; a [`meter`]
//! reads what it cost them. [`compare`] does that for several programs in alternation, and [`report`] writes
//! it down. A run in which a message was lost, duplicated or misplaced is a failed run, however fast.
//!
//! [`chaos`] is the other half: it breaks clusters and checks what must stay true.
#![expect(clippy::print_stdout, reason = "results go to standard output")]

mod chaos;
mod cli;
mod client;
mod compare;
mod counter;
mod fleet;
mod machine;
mod message;
mod meter;
mod process;
mod redis;
mod report;
mod scenario;
mod server;
mod stats;
mod swarm;

use std::process::ExitCode;

fn main() -> ExitCode {
    match cli::run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("carillon-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}
