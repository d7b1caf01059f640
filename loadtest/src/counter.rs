//! Events that the kernel or the processor counts for the server, read through `perf stat`.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::fs::{CWD, Mode, mkfifoat};
use rustix::process::{Pid, Signal, kill_process};

/// How long `perf` may take to follow an order.
const ORDER_TIMEOUT: Duration = Duration::from_secs(10);

/// Instructions in user space.
pub const INSTRUCTIONS_USER: &str = "instructions:u";
/// Instructions in the kernel.
pub const INSTRUCTIONS_KERNEL: &str = "instructions:k";
/// System calls.
pub const SYSCALLS: &str = "raw_syscalls:sys_enter";

/// Which of the wanted events can be counted here: virtual machines often hide the processor's counters.
pub fn supported(events: &[&'static str]) -> Vec<&'static str> {
    events.iter().copied().filter(|event| counts(event)).collect()
}

fn counts(event: &str) -> bool {
    let output = Command::new("perf").args(["stat", "-x", ";", "-e", event, "true"]).output();
    let Ok(output) = output else { return false };
    parse(&String::from_utf8_lossy(&output.stderr)).contains_key(event)
}

/// A `perf stat` on the server, told over named pipes when to begin so that no event of the window is missed.
pub struct Counters {
    child: Child,
    directory: PathBuf,
    orders: File,
    answers: Receiver<String>,
}

impl Counters {
    /// Begins to count.
    pub fn start(pids: &[u32], events: &[&str]) -> Result<Counters> {
        let directory = std::env::temp_dir().join(format!("carillon-bench-{}", std::process::id()));
        fs::create_dir_all(&directory)?;
        let paths = ["orders", "answers"].map(|name| directory.join(name));
        for path in &paths {
            // One may be left from the window before.
            let _ = fs::remove_file(path);
            mkfifoat(CWD, path, Mode::RUSR | Mode::WUSR).context("make a named pipe")?;
        }
        // Opened for both directions, a named pipe never makes the opener wait for the other side.
        let open = |path: &PathBuf| OpenOptions::new().read(true).write(true).open(path);
        let (orders, pipe) = (open(&paths[0])?, open(&paths[1])?);
        let pids: Vec<String> = pids.iter().map(u32::to_string).collect();
        let child = Command::new("perf")
            .args(["stat", "-x", ";", "-D", "-1", "-e", &events.join(","), "-p", &pids.join(",")])
            .arg(format!("--control=fifo:{},{}", paths[0].display(), paths[1].display()))
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .context("start perf")?;
        let (sender, answers) = mpsc::channel();
        // Ends with the end of its receiver, which `drop` makes it notice.
        thread::spawn(move || {
            for line in BufReader::new(pipe).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        let mut counters = Counters { child, directory, orders, answers };
        counters.order("enable")?;
        Ok(counters)
    }

    fn order(&mut self, order: &str) -> Result<()> {
        writeln!(self.orders, "{order}")?;
        let answer = self.answers.recv_timeout(ORDER_TIMEOUT).context("wait for perf")?;
        ensure!(answer.trim_matches('\0').trim() == "ack", "perf answered {answer:?}");
        Ok(())
    }

    /// Ends the window and gives the count of each event.
    pub fn stop(mut self) -> Result<BTreeMap<String, f64>> {
        self.order("disable")?;
        let pid = Pid::from_child(&self.child);
        kill_process(pid, Signal::INT).context("end perf")?;
        let mut text = String::new();
        let stderr = self.child.stderr.as_mut().context("standard error was not piped")?;
        stderr.read_to_string(&mut text)?;
        Ok(parse(&text))
    }
}

impl Drop for Counters {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        // Wakes the reading thread, whose receiver is gone by its second line.
        if let Ok(mut pipe) =
            OpenOptions::new().read(true).write(true).open(self.directory.join("answers"))
        {
            let _ = pipe.write_all(b"\n\n");
        }
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// Lines such as `123;;instructions:u;...`; an event that cannot be counted has words for a number.
fn parse(text: &str) -> BTreeMap<String, f64> {
    text.lines()
        .filter_map(|line| {
            let mut fields = line.split(';');
            let value = fields.next()?.trim().parse().ok()?;
            let name = fields.nth(1)?;
            Some((name.to_owned(), value))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counted_events_are_read_and_the_others_left_out() {
        let text = "1234;;raw_syscalls:sys_enter;1000;100.00;;\n<not supported>;;instructions:u;0;100.00;;\n";
        assert_eq!(parse(text), BTreeMap::from([(SYSCALLS.to_owned(), 1234.0)]));
    }
}
